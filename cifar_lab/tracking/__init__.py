"""Metrics out of the run directory, to whoever listens."""
