"""Proof that killing and resuming change nothing."""
