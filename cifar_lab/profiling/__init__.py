"""Where a training step's time goes, measured on the real loop from outside."""
