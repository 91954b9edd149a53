"""Model families: a file is a name in a recipe."""
