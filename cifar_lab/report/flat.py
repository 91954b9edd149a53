"""Recipes as flat mappings of dotted keys, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cifar_lab.recipe import Recipe, identity_fields
from cifar_lab.report.record import RunRecord

NOT_A_DIFFERENCE = ("name", "seed")


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key, of whatever a recipe.yaml holds."""
    leaves: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        elif value != {}:
            leaves[f"{prefix}{key}"] = value
    return leaves


def fields(record: RunRecord) -> dict[str, Any]:
    """What makes the run's experiment and is not at its default, by dotted key."""
    try:
        return identity_fields(Recipe.model_validate(record.recipe))
    except (ValueError, TypeError, OverflowError):  # of another version
        return flat(record.recipe)


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys whose values are not the same in all flat recipes, in their order."""
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [
        key
        for key in keys
        if key not in NOT_A_DIFFERENCE and any(recipe.get(key) != recipes[0].get(key) for recipe in recipes[1:])
    ]
