"""docs/recipes.md: what the schema says, all of it, and what decides the identity."""

from __future__ import annotations

import json
import re
import runpy
from types import SimpleNamespace
from typing import Any

import pytest
from support.commands import ROOT

from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.identity import experiment_id, flatten
from cifar_lab.recipe.schema import sections

MAPPING = {
    "name": "x",
    "model": {"name": "resnet"},
    "optim": {"lr": 0.1},
    "train": {"epochs": 1, "global_batch": 16},
}
# Another value of a key of each kind.
CHANGED = {
    "train.global_batch": 32,
    "data.val_size": 10,
    "eval.tta": True,
    "data.root": "/",
    "log.every_steps": 7,
    "train.micro_batch": 8,
    "tracking.wandb_project": "p",
    "name": "y",
}


def script() -> Any:
    """scripts/recipe_reference.py as a module."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "recipe_reference.py")))


def rows() -> dict[str, list[str]]:
    """The cells of each key's line."""
    lines = re.findall(
        r"^\| `([a-z0-9_.]+)` \| (.+) \|$", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {key: re.split(r"(?<!\\) \| ", rest) for key, rest in lines if rest.count(" | ") == 3}


def test_the_reference_is_current() -> None:
    made = script()
    for path, text in ((made.PATH, made.reference_text()), (made.SCHEMA_PATH, made.schema_text())):
        assert path.read_text(encoding="utf-8") == text, "run: python scripts/recipe_reference.py"


def test_it_has_every_key_with_its_default() -> None:
    found, recipe = rows(), flatten(parse_recipe(MAPPING, check_files=False))
    # Keys and sections, of which `support` names some again in a table of its own.
    assert set(recipe) | {name for name in sections() if name} <= set(found)
    assert found["optim.betas"][1] == "`[0.9, 0.999]`"
    assert found["train.global_batch"][1] == "**required**"
    assert all(cells[3] for cells in found.values())


@pytest.mark.parametrize("key", CHANGED)
def test_the_kind_that_it_tells_is_true(key: str) -> None:
    mapping = {
        **MAPPING,
        **{name: dict(MAPPING.get(name, {})) for name in ("data", "train", "eval", "log", "tracking")},
    }
    section, _, last = key.rpartition(".")
    (mapping[section] if section else mapping)[last] = CHANGED[key]
    before, after = (experiment_id(parse_recipe(m, check_files=False)) for m in (MAPPING, mapping))
    assert (before != after) == (rows()[key][2] == "identity")


@pytest.mark.parametrize(
    ("kind", "name", "argument", "cells"),
    [
        ("Model", "vit", "heads", ["a whole number above 0", "`4`", "Attention heads"]),
        ("Model", "timm_zoo", "arch", ["text", "**required**", "timm's name"]),
        ("Data", "shapes", "num_train", ["a whole number from 10", "`10000`", "Number of training pictures"]),
    ],
)
def test_arguments_have_type_default_and_meaning(kind: str, name: str, argument: str, cells: list[str]) -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| `{name}` \| `{argument}` \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert found is not None
    assert [cell.startswith(begin) for cell, begin in zip(found.groups(), cells, strict=True)] == [True] * 3
    rules = json.loads((ROOT / "recipes" / "schema.json").read_text(encoding="utf-8"))["$defs"][kind]["allOf"]
    (then,) = [rule["then"] for rule in rules if rule["if"]["properties"]["name"]["const"] == name]
    assert then["properties"]["args"]["properties"][argument]["description"].startswith(cells[2])
