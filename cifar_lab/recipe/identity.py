"""What makes two recipes the same experiment."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cifar_lab.recipe.schema import SCHEMA_VERSION, Recipe, Section


def flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Every leaf by its dotted key, in the order of the schema; arguments one by one, tuples as lists."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value, key = getattr(section, name), prefix + name
        if isinstance(value, Section):
            flat |= flatten(value, key + ".")
        elif isinstance(value, dict) and value:
            flat |= {f"{key}.{argument}": inner for argument, inner in value.items()}
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def _leaf_fields(model: type[Section], prefix: str = "") -> dict[str, tuple[bool, Any]]:
    """(operational, default) of every leaf field by its dotted key."""
    leaves: dict[str, tuple[bool, Any]] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            leaves |= _leaf_fields(field.annotation, f"{prefix}{name}.")
        else:
            extra = field.json_schema_extra
            leaves[prefix + name] = (isinstance(extra, dict) and bool(extra.get("operational")), field.default)
    return leaves


def identity_fields(recipe: Recipe) -> dict[str, Any]:
    """The fields that change the result and are not at their defaults, by dotted key; `name` is not among them."""
    leaves = _leaf_fields(type(recipe))
    identity = {}
    for key, value in flatten(recipe).items():
        field = key if key in leaves else key[: key.index(".args.") + len(".args")]
        operational, default = leaves[field]
        default = list(default) if isinstance(default, tuple) else default
        if not operational and key != "name" and (key != field or value != default):
            identity[key] = value
    return identity


def experiment_id(recipe: Recipe) -> str:
    """Eight hexadecimal digits, the same for every seed of an experiment: sha256 of its identity and SCHEMA_VERSION."""
    fields = {key: _canonical(value) for key, value in identity_fields(recipe).items() if key != "seed"}
    text = json.dumps({"schema_version": SCHEMA_VERSION, **fields}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _canonical(value: Any) -> Any:
    """The same JSON for 4 and 4.0, which are equal."""
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
