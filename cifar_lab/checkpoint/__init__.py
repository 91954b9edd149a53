"""Training state to disk and back."""
