"""Networks by name, how one is built and how large it is."""

from cifar_lab.errors import UsageError


class ModelError(UsageError):
    """A model, or its initial weights, cannot be built as asked; the message names the fix."""
