"""Recipes: what is trained, checked as a whole before anything heavy is imported."""

from cifar_lab.recipe.errors import RecipeError
from cifar_lab.recipe.identity import defaults, experiment_id, identity_fields
from cifar_lab.recipe.load import load_recipe, origins, parse_recipe
from cifar_lab.recipe.schema import Recipe
from cifar_lab.recipe.yaml_text import to_yaml

__all__ = [
    "Recipe",
    "RecipeError",
    "defaults",
    "experiment_id",
    "identity_fields",
    "load_recipe",
    "origins",
    "parse_recipe",
    "to_yaml",
]
