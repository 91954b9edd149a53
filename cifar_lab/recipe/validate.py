"""From given values to a Recipe, with pydantic's errors at their lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cifar_lab.recipe.errors import Problem, grouped, nearest, said
from cifar_lab.recipe.schema import Recipe, dotted, fields, sections
from cifar_lab.recipe.source import Source

# What other trainers call a field.
_FOREIGN_NAMES = {
    "batch_size": "train.global_batch",
    "learning_rate": "optim.lr",
    "wd": "optim.weight_decay",
    "optimizer": "optim.name",
    "scheduler": "optim.schedule",
    "lr_scheduler": "optim.schedule",
    "num_epochs": "train.epochs",
    "max_steps": "train.steps",
    "amp": "train.precision",
    "dtype": "train.precision",
    "smoothing": "train.label_smoothing",
    "clip_grad": "train.grad_clip",
    "arch": "model.args.arch",
    "depth": "model.args.depth",
    "width": "model.args.width",
    "drop_path": "model.args.drop_path",
    "dataset": "data.name",
    "augmentation": "data.augment",
    "random_seed": "seed",
    "project": "tracking.wandb_project",
}
_STAND_INS = {"name": "unnamed", "model": {"name": ""}, "optim": {"lr": 1.0}, "train": {"global_batch": 2**20}}


def validate(source: Source) -> tuple[Recipe | None, set[str]]:
    """The recipe, and the keys that are wrong and hold stand-ins in it so that other checks can go on.

    Each mistake is noted in `source`. The recipe is None if even the stand-ins do not help.
    """
    try:
        return Recipe.model_validate(source.values), set()
    except ValidationError as error:
        found = grouped(error.errors(include_url=False), _names)
    meant = {key: _meant(key) for key, details in found.items() if details[0]["type"] == "extra_forbidden"}
    guessed = [guess for guesses in meant.values() for guess in guesses]
    for key, details in found.items():
        if key in meant:
            message = _unknown(key, meant[key])
        elif details[0]["type"] != "missing" or "[" in key:
            message = said(details)
        elif any(f"{guess}.".startswith(f"{key}.") for guess in guessed):
            continue
        elif key in sections():
            needs = [f"`{name}`" for name, field in sections()[key].model_fields.items() if field.is_required()]
            message = f"this section is missing; it needs at least {', '.join(needs)}"
        else:
            message = f"is missing; give its value: {fields()[key].description}"
        source.report(Problem((key,), message))
    wrong = {key.partition("[")[0] for key in found}
    try:
        return Recipe.model_validate(_repaired(_STAND_INS, source.values, wrong, "")), wrong
    except ValidationError:
        return None, wrong


def _names(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """What of pydantic's place of an error leads to a field."""
    depth = 0
    while depth < len(loc) and ".".join(map(str, loc[:depth])) in sections():
        depth += 1
    return loc[:depth]


def _meant(key: str) -> list[str]:
    """The keys for which an unknown one may stand."""
    section, _, name = key.rpartition(".")
    known = [*sections(), *fields()]

    def called(name: str | None) -> list[str]:
        return [key for key in known if key.rpartition(".")[2] == name]

    if section not in sections():  # `model.args.width: 3`, written in one line
        return []
    near = nearest(name, sections()[section].model_fields)
    if name in _FOREIGN_NAMES and not called(name):
        return [_FOREIGN_NAMES[name]]
    if near and (name == "name" or not called(name)):
        return [dotted(section, near)]
    return called(name) or called(nearest(name, [key.rpartition(".")[2] for key in known if key]))


def _unknown(key: str, meant: list[str]) -> str:
    section, _, _name = key.rpartition(".")
    if section not in sections():
        return "unknown key; write sections nested"
    if key in ("base", "defaults", "extends", "inherit"):
        return "unknown key; a recipe has no base: one file tells the experiment"
    if not meant:
        owner = f"`{section}`" if section else "a recipe"
        return f"unknown key; {owner} has {', '.join(sections()[section].model_fields)}"
    guesses = [guess.removeprefix(f"{section}.") if section else guess for guess in meant]
    return f"unknown key (did you mean {' or '.join(f'`{guess}`' for guess in guesses)}?)"


def _repaired(stand_in: Mapping[str, Any], given: Mapping[str, Any], wrong: set[str], section: str) -> dict[str, Any]:
    """What is given and not wrong, over stand-ins for what is required."""
    repaired = dict(stand_in)
    for name, value in given.items():
        key = dotted(section, name)
        if key in sections() and key not in wrong:
            repaired[name] = _repaired(stand_in.get(name, {}), value, wrong, key)
        elif key not in wrong:
            repaired[name] = value
    return repaired
