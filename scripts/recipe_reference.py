#!/usr/bin/env python3
"""Writes docs/recipes.md and, for editors, recipes/schema.json: `python scripts/recipe_reference.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cifar_lab.recipe import Recipe
from cifar_lab.recipe.identity import defaults, is_operational
from cifar_lab.recipe.plugins import FAMILIES, SOURCES, Kind
from cifar_lab.recipe.schema import dotted, sections
from cifar_lab.recipe.support import TABLE

PATH = Path(__file__).parents[1] / "docs" / "recipes.md"
SCHEMA_PATH = Path(__file__).parents[1] / "recipes" / "schema.json"

HEAD = """\
# Recipes: every key

Written from [the schema](../cifar_lab/recipe/schema.py) by `python scripts/recipe_reference.py`: change that, not
this file. `cifar-lab recipes new mine.yaml` begins a recipe, `cifar-lab recipes show RECIPE` shows the value
of every key of one and where it comes from, and `cifar-lab train RECIPE --dry-run` what it comes to. `key=value` after
the recipe changes a key: `optim.lr=0.05 data.augment.flip=true`.

A key is of one of two kinds. **identity**: it changes the result, so another value is another experiment with a run
directory of its own. **operational**: it does not change the result (where data lie, how often to log); a run continues
under another value. Only `name` is neither: it names the experiment and its folder, and is no part of the identity.
`seed` tells the runs of one experiment apart.

`train.micro_batch` is the exception. Batch norm takes its statistics over a micro-batch, and dropout and drop path draw
once for it. A net with such layers gives another result at another micro-batch, whether this key or the number of
processes brings it. The run keeps the one that it used; resuming at another is refused with the key to set, or accepted
by `--accept-micro-batch`; the report tells such runs apart. For other nets it changes nothing, not even with mixup and
CutMix: their pairs are those of the epoch's order.

All mistakes of a recipe are told at once, each with file, line and fix. Keys that would have no effect are mistakes.
"""

FAMILIES_HEAD = """\
## Arguments of model families (`model.args`)

A family is a file of `cifar_lab/models/families`. Its arguments are part of the identity.
"""
SOURCES_HEAD = """\
## Arguments of data sources (`data.args`)

A source is a file of `cifar_lab/data/sources`. Its arguments are part of the identity.
"""
TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "a section of keys",
}
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "and below"}


def reference_text() -> str:
    """The whole of docs/recipes.md."""
    lines = [HEAD]
    for name in sections():
        lines += [*_section(name), ""]
    lines += [FAMILIES_HEAD, *_arguments(FAMILIES), "", SOURCES_HEAD, *_arguments(SOURCES), ""]
    lines += ["## What does not work everywhere", "", "| key | not on | since | instead |", "|---|---|---|---|"]
    lines += [f"| `{e.option}` | {', '.join(e.where)} | {e.reason} | {e.instead} |" for e in TABLE]
    return "\n".join(lines) + "\n"


def _section(name: str) -> Iterator[str]:
    """The table of a section's own keys."""
    section, schema = sections()[name], sections()[name].model_json_schema()
    yield f"## `{name}`" if name else "## The recipe itself"
    yield ""
    yield schema["description"]
    yield ""
    yield "| key | value | default | kind | meaning |"
    yield "|---|---|---|---|---|"
    for own, field in section.model_fields.items():
        key = dotted(name, own)
        if key in sections():
            needed = "**required**" if field.is_required() else "its keys' own"
            yield f"| `{key}` | [a section](#{key.replace('.', '')}) | {needed} | - | {field.description} |"
            continue
        kind = "name" if key == "name" else "operational" if is_operational(field) else "identity"
        default = "**required**" if field.is_required() else f"`{_shown(defaults()[key])}`"
        yield f"| `{key}` | {_expected(schema['properties'][own])} | {default} | {kind} | {field.description} |"


def _arguments(kind: Kind) -> Iterator[str]:
    yield "| name | argument | value | default | meaning |"
    yield "|---|---|---|---|---|"
    for name in kind.names():
        arguments = kind.arguments(name)
        if arguments is None:
            continue
        schema = arguments.model_json_schema()
        properties: dict[str, Any] = schema.get("properties", {})
        for argument, value in properties.items():
            needed = argument in schema.get("required", ())
            default = "**required**" if needed else f"`{_shown(value['default'])}`"
            yield f"| `{name}` | `{argument}` | {_expected(value)} | {default} | {value.get('description', '')} |"
        if arguments.model_config["extra"] == "allow":
            yield f"| `{name}` | any other | of the architecture's own | | |"
        elif not properties:
            yield f"| `{name}` | none | | | |"


def _expected(schema: dict[str, Any]) -> str:
    """What a field wants, such as `a whole number above 0 or null`."""
    if "anyOf" in schema:
        return " or ".join(map(_expected, schema["anyOf"]))
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if choices:
        return ("one of " if len(choices) > 1 else "") + ", ".join(f"`{_shown(choice)}`" for choice in choices)
    if schema.get("type") == "array":
        items = schema.get("prefixItems", [schema.get("items", {})])
        return f"a list of {_expected(items[0]).replace('a number', 'numbers')}"
    if "pattern" in schema:
        return f"at most {schema['maxLength']} letters, digits, `_`, `-`, `.`; the first a letter or digit"
    bounds = [f"{word} {_shown(schema[bound])}" for bound, word in BOUNDS.items() if bound in schema]
    kind = schema.get("type", "a value")
    return " ".join([TYPES.get(kind, kind), *bounds])


def _named(section: str, name: str) -> dict[str, Any]:
    """That the section's `name` has to be there, unless it is the default."""
    fields = sections()[section.lower()].model_fields
    return {} if fields["name"].default == name else {"required": ["name"]}


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def schema_text() -> str:
    """The JSON schema of a recipe; the arguments that an editor offers are those of the section's `name`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    for section, kind in (("Model", FAMILIES), ("Data", SOURCES)):
        found = {name: kind.arguments(name) for name in kind.names()}
        schema["$defs"][section]["allOf"] = [
            {
                # Where the name is left out, its default decides.
                "if": {"properties": {"name": {"const": name}}, **_named(section, name)},
                "then": {"properties": {"args": arguments.model_json_schema()}},
            }
            for name, arguments in found.items()
            if arguments
        ]
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    for path, text in ((PATH, reference_text()), (SCHEMA_PATH, schema_text())):
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
