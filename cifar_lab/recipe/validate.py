"""From given values to a Recipe, with pydantic's errors at their lines."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cifar_lab.recipe.errors import Problem, did_you_mean, nearest
from cifar_lab.recipe.schema import Recipe, Section
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
_STAND_INS = {"name": "unnamed", "model.name": "", "optim.lr": 1.0, "train.global_batch": 2**20}


def sections() -> dict[str, type[Section]]:
    """Every section by its dotted name; the recipe itself is ``."""
    found: dict[str, type[Section]] = {"": Recipe}
    for name, section in _subsections(Recipe, ""):
        found[name] = section
    return found


def _subsections(model: type[BaseModel], prefix: str) -> list[tuple[str, type[Section]]]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += [(prefix + name, field.annotation), *_subsections(field.annotation, f"{prefix}{name}.")]
    return found


def validate(source: Source) -> tuple[Recipe | None, set[str]]:
    """The recipe, and the keys that are wrong and hold stand-ins in it so that other checks can go on.

    Each mistake is noted in `source`. The recipe is None if even the stand-ins do not help.
    """
    try:
        return Recipe.model_validate(source.values), set()
    except ValidationError as error:
        details = error.errors(include_url=False)
    places = [(detail["type"], *_place(detail["loc"])) for detail in details]
    guessed = {_note_unknown(source, names) for kind, names, _ in places if kind == "extra_forbidden"}
    wrong: dict[str, list[ErrorDetails]] = {}
    for (kind, names, index), detail in zip(places, details, strict=True):
        key = ".".join(names)
        if kind == "missing":
            _note_missing(source, key, guessed)
        elif kind != "extra_forbidden":
            wrong.setdefault(key if index is None else f"{key}[{index}]", []).append(detail)
    for key, found in wrong.items():
        source.report(Problem((key,), said(found)))
    return _stand_in(source.values, [names for _, names, _ in places])


def said(details: Sequence[ErrorDetails]) -> str:
    """What pydantic says of one value (of a union, each member says something), and what was found."""
    value = details[0]["input"]
    messages = " or ".join(dict.fromkeys(detail["msg"] for detail in details))
    messages = messages.replace(" or Input should be", " or").replace("a valid boolean", "true or false")
    choices = [
        word for detail in details for word in re.findall("'([^']+)'", detail.get("ctx", {}).get("expected", ""))
    ]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    found = "nothing" if value is None else json.dumps(value, default=repr)
    return f"{messages}, found {found if len(found) <= 60 else found[:57] + '...'}{hint}"


def _place(loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], int | None]:
    """The names that lead to an error, and the position within its list; labels of unions are dropped."""
    by_name = sections()
    depth = 0
    while depth < len(loc) and ".".join(map(str, loc[:depth])) in by_name:
        depth += 1
    names, rest = tuple(map(str, loc[:depth])), loc[depth:]
    return names, next((part for part in rest if isinstance(part, int)), None)


def _note_unknown(source: Source, names: tuple[str, ...]) -> str | None:
    """Note an unknown key; returns the key that was probably meant."""
    section, name = ".".join(names[:-1]), names[-1]
    by_name = sections()
    siblings = by_name[section].model_fields
    homes = [f"{home}.{name}" if home else name for home, model in by_name.items() if name in model.model_fields]
    prefix = f"{section}." if section else ""
    meant = None
    dotted = "." in name
    if dotted or (not section and name in ("base", "defaults", "extends", "inherit")):
        reason = "write sections nested" if dotted else "a recipe has no base: one file tells the experiment"
        message = f"unknown key; {reason}"
    elif homes and not (name == "name" and section):
        meant = homes[0]
        message = f"unknown key here; `{name}` belongs to {_home(homes)}"
    elif near := nearest(name, siblings):
        meant = prefix + near
        message = f"unknown key (did you mean `{near}`?)"
    elif foreign := _FOREIGN_NAMES.get(name.lower()):
        meant = foreign
        message = f"unknown key (did you mean `{foreign}`?)"
    else:
        near = nearest(name, [field for model in by_name.values() for field in model.model_fields])
        home = next((home for home, model in by_name.items() if near in model.model_fields), "")
        message = f"unknown key (did you mean `{home}.{near}`?)" if near and home else "unknown key"
        if not near:
            message += f"; {f'`{section}`' if section else 'a recipe'} has {', '.join(siblings)}"
    source.report(Problem((".".join(names),), message))
    return meant


def _home(homes: list[str]) -> str:
    places = [f"`{home.rpartition('.')[0]}`" if "." in home else "the top of the recipe" for home in homes]
    return " or ".join(places)


def _note_missing(source: Source, key: str, guessed: set[str | None]) -> None:
    if key in guessed or any(meant and meant.startswith(key + ".") for meant in guessed):
        return
    by_name = sections()
    if key in by_name:
        needs = [f"`{name}`" for name, field in by_name[key].model_fields.items() if field.is_required()]
        source.report(Problem((key,), f"this section is missing; it needs at least {', '.join(needs)}"))
        return
    section, _, name = key.rpartition(".")
    source.report(Problem((key,), f"is missing; give its value: {by_name[section].model_fields[name].description}"))


def _stand_in(values: dict[str, Any], wrong: list[tuple[str, ...]]) -> tuple[Recipe | None, set[str]]:
    """The recipe with its wrong keys left out and its missing ones filled in, and the dotted keys of both."""
    repaired = copy.deepcopy(values)
    broken = {".".join(names) for names in wrong}
    for *names, last in wrong:
        section: Any = repaired
        for name in names:
            section = section.get(name, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict):
            section.pop(last, None)
    for key, value in _STAND_INS.items():
        section = repaired
        *names, last = key.split(".")
        for name in names:
            section = section.setdefault(name, {})
        if last not in section:
            section[last] = value
            broken.add(key)
    try:
        return Recipe.model_validate(repaired), broken
    except ValidationError:
        return None, broken
