"""The loop and its session, from start to finish."""
