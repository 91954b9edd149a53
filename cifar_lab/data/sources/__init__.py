"""Data sources: a file is a name in a recipe."""

import importlib
from types import ModuleType

from cifar_lab.recipe import outside


def find_source(name: str) -> ModuleType:
    """The module of a source; recipes name only those that are there. Raises RecipeError for a broken file."""
    if outside.is_outside(name):
        return outside.load(name)
    return importlib.import_module(f"cifar_lab.data.sources.{name}")
