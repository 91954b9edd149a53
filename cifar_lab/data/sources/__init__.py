"""Data sources: a file is a name in a recipe."""
