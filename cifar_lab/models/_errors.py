"""What a model file raises when the user asks for something that cannot be built."""


class ModelError(ValueError):
    """A model, or its initial weights, cannot be built as asked; the message names the fix."""
