"""Writes recipes/schema.json for editors: `python -m cifar_lab.recipe.json_schema`."""

from __future__ import annotations

import json
from pathlib import Path

from cifar_lab.recipe.schema import Recipe

PATH = Path(__file__).parents[2] / "recipes" / "schema.json"


def schema_text() -> str:
    """The JSON schema of a recipe."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def main() -> None:
    PATH.write_text(schema_text(), encoding="utf-8")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
