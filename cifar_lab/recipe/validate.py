"""From given values to a Recipe, with pydantic's errors turned into plain words."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel, ValidationError

from cifar_lab.recipe.errors import Problem, nearest
from cifar_lab.recipe.schema import Recipe, Section
from cifar_lab.recipe.source import Source
from cifar_lab.recipe.wording import Schema, expected, mismatch

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
    schema = Recipe.model_json_schema()
    for kind, names, index in places:
        key = ".".join(names)
        if kind == "missing":
            _note_missing(source, key, guessed, schema)
        elif kind != "extra_forbidden":
            wanted, value = _leaf_schema(schema, key), _given(source.values, key)
            if index is not None:
                array = next(option for option in wanted.get("anyOf", [wanted]) if option.get("type") == "array")
                wanted, value = array["items"], value[index]
            place = key if index is None else f"{key}[{index}]"
            source.report(Problem((place,), mismatch(wanted, value)))
    return _stand_in(source.values, [names for _, names, _ in places])


def _place(loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], int | None]:
    """The names that lead to an error, and the position within its list; labels of unions are dropped."""
    by_name = sections()
    depth = 0
    while depth < len(loc) and ".".join(map(str, loc[:depth])) in by_name:
        depth += 1
    names, rest = tuple(map(str, loc[:depth])), loc[depth:]
    return names, next((part for part in rest if isinstance(part, int)), None)


def _given(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values


def _leaf_schema(schema: Schema, key: str) -> Schema:
    node = schema
    for name in key.split("."):
        node = node["properties"][name]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


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


def _note_missing(source: Source, key: str, guessed: set[str | None], schema: Schema) -> None:
    if key in guessed or any(meant and meant.startswith(key + ".") for meant in guessed):
        return
    if key in sections():
        needs = [f"`{name}`" for name, field in sections()[key].model_fields.items() if field.is_required()]
        source.report(Problem((key,), f"this section is missing; it needs at least {', '.join(needs)}"))
        return
    leaf = _leaf_schema(schema, key)
    meaning = leaf.get("description", "").rstrip(".")
    source.report(Problem((key,), f"is missing; give {expected(leaf)} ({meaning[:1].lower()}{meaning[1:]})"))


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
