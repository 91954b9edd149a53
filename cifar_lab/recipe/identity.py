"""What makes two recipes the same experiment."""

import hashlib
import json
from typing import Any

from pydantic.fields import FieldInfo

from cifar_lab.recipe.outside import is_outside
from cifar_lab.recipe.schema import SCHEMA_VERSION, Recipe, fields
from cifar_lab.recipe.section import Section


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


def defaults() -> dict[str, Any]:
    """The default of every field by its dotted key, tuples as lists."""
    return {
        key: list(field.default) if isinstance(field.default, tuple) else field.default
        for key, field in fields().items()
    }


def is_operational(field: FieldInfo) -> bool:
    """Whether the field does not change the result."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("operational"))


def identity_fields(recipe: Recipe) -> dict[str, Any]:
    """The fields that change the result and are not at their defaults, by dotted key; `name` is not among them."""
    # Before a part could be held out 5000 was the default, which no identity names: a tenth of CIFAR-10.
    known, default, flat = fields(), defaults() | {"data.val_size": 5000}, flatten(recipe)
    if (recipe.data.name, recipe.data.val_size, recipe.data.test_size) == ("cifar10", 0.1, None):
        flat["data.val_size"] = 5000
    identity = {}
    for key, value in flat.items():
        field = key if key in known else key[: key.index(".args.") + len(".args")]
        if not is_operational(known[field]) and key != "name" and (key != field or value != default[field]):
            identity[key] = meaning(key, value)
    return identity


def meaning(key: str, value: Any) -> Any:
    """What of a value makes the experiment: of a file outside of the package its content, not what it is called."""
    return value[-17:] if key in ("data.name", "model.name") and is_outside(value) else value


def experiment_id(recipe: Recipe, version: int = SCHEMA_VERSION) -> str:
    """Eight hexadecimal digits, the same for every seed of an experiment: sha256 of its identity and the version."""
    identity = {key: value for key, value in identity_fields(recipe).items() if key != "seed"}
    # 4 and 4.0 are equal, so they must read the same.
    canonical = json.loads(json.dumps(identity), parse_float=_whole_if_equal)
    text = json.dumps({"schema_version": version, **canonical}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _whole_if_equal(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number
