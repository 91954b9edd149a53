"""Writes docs/recipes.md and, for editors, recipes/schema.json: `python -m cifar_lab.recipe.reference`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cifar_lab.recipe.outside import Folders
from cifar_lab.recipe.schema import Recipe, Section
from cifar_lab.recipe.signature import Signature, plugin_names, read_signature
from cifar_lab.recipe.support import TABLE
from cifar_lab.recipe.wording import Schema, expected, show

PATH = Path(__file__).parents[2] / "docs" / "recipes.md"
SCHEMA_PATH = Path(__file__).parents[2] / "recipes" / "schema.json"

HEAD = """\
# Recipes: every key

Written from [the schema](../cifar_lab/recipe/schema.py) by `python -m cifar_lab.recipe.reference`: change that, not
this file. `cifar-lab recipes new mine.yaml` begins a recipe, `cifar-lab recipes show RECIPE` shows the value
of every key of one and where it comes from, and `cifar-lab train RECIPE --dry-run` what it comes to. `key=value` after
the recipe changes a key: `optim.lr=0.05 data.augment.flip=true`.

A key is of one of two kinds. **identity**: it changes the result, so another value is another experiment with a run
directory of its own. **operational**: it does not change the result (where data lie, how often to log); a run continues
under another value. Only `name` is neither: it names the experiment and its folder, and is no part of the identity.
`seed` tells the runs of one experiment apart.

All mistakes of a recipe are told at once, each with file, line and fix. Keys that would have no effect are mistakes.
"""

FAMILIES = """\
## Arguments of model families (`model.args`)

A family is a file of `cifar_lab/models/families`; the docstrings there say what the arguments mean.
"""
SOURCES = """\
## Arguments of data sources (`data.args`)

A source is a file of `cifar_lab/data/sources`.
"""


def reference_text() -> str:
    """The whole of docs/recipes.md."""
    schema = Recipe.model_json_schema()
    lines = [HEAD, *_section(Recipe, "", schema, schema)]
    lines += [FAMILIES, *_plugins(Folders().models, "build", {"num_classes", "image_size"})]
    lines += [SOURCES, *_plugins(Folders().sources, "load", {"split", "root"})]
    lines += ["## What does not work everywhere", "", "| key | not on | since | instead |", "|---|---|---|---|"]
    for entry in TABLE:
        lines.append(f"| `{entry.option}` | {', '.join(entry.where)} | {entry.reason} | {_cell(entry.instead)} |")
    return "\n".join(lines) + "\n"


def _section(section: type[Section], name: str, schema: Schema, whole: Schema) -> Iterator[str]:
    """The table of a section's own keys, then those of the sections in it."""
    yield f"## `{name}`" if name else "## The recipe itself"
    yield ""
    yield (section.__doc__ or "").strip()
    yield ""
    yield "| key | value | default | kind | meaning |"
    yield "|---|---|---|---|---|"
    inner = []
    for key, field in section.model_fields.items():
        dotted = f"{name}.{key}" if name else key
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            inner.append((field.annotation, dotted))
            needed = "**required**" if field.is_required() else "its keys' own"
            yield f"| `{dotted}` | [a section](#{dotted.replace('.', '')}) | {needed} | - | {field.description} |"
            continue
        extra = field.json_schema_extra
        is_operational = isinstance(extra, dict) and extra.get("operational")
        kind = "name" if dotted == "name" else "operational" if is_operational else "identity"
        default = "**required**" if field.is_required() else f"`{_default(field.default)}`"
        value = _cell(expected(schema["properties"][key]))
        yield f"| `{dotted}` | {value} | {default} | {kind} | {_cell(field.description or '')} |"
    yield ""
    for part, dotted in inner:
        yield from _section(part, dotted, whole["$defs"][part.__name__], whole)


def _plugins(folder: Path, function: str, supplied: set[str]) -> Iterator[str]:
    yield "| name | argument | value |"
    yield "|---|---|---|"
    for name in plugin_names(folder):
        signature = read_signature(folder / f"{name}.py", function, frozenset(supplied))
        if signature is not None:
            yield from (f"| `{name}` | {row} |" for row in _arguments(signature))
    yield ""


def _arguments(signature: Signature) -> Iterator[str]:
    properties = signature.arguments.model_json_schema().get("properties", {})
    for name, schema in properties.items():
        yield f"`{name}` | {_cell(expected(schema))}{', **required**' if name in signature.required else ''}"
    if signature.open:
        yield "any other | of the architecture's own"
    elif not properties:
        yield "none | "


def _default(value: Any) -> str:
    return show(list(value) if isinstance(value, tuple) else value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def schema_text() -> str:
    """The JSON schema of a recipe."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def main() -> None:
    for path, text in ((PATH, reference_text()), (SCHEMA_PATH, schema_text())):
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
