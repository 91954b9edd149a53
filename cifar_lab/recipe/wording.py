"""Plain words for what a field expects, read from its JSON schema."""

from __future__ import annotations

import json
import math
from typing import Any

Schema = dict[str, Any]
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a section of keys",
}


def expected(schema: Schema) -> str:
    """What a field wants, such as `a whole number above 0 or null`."""
    if "anyOf" in schema:
        return " or ".join(expected(option) for option in schema["anyOf"])
    if choices(schema):
        words = [f"`{show(choice)}`" for choice in choices(schema)]
        return words[0] if len(words) == 1 else "one of " + ", ".join(words)
    if schema.get("type") == "array":
        return _expected_list(schema)
    words_of_type = _TYPES.get(schema.get("type", ""), "a value")
    if "pattern" in schema:
        return (
            f"a name of at most {schema['maxLength']} letters, digits, `_`, `-`, `.` that begins with a letter or digit"
        )
    return words_of_type + _bounds(schema)


def _expected_list(schema: Schema) -> str:
    if "prefixItems" in schema:
        return "a list of " + ", ".join(expected(item) for item in schema["prefixItems"])
    item = expected(schema["items"]) if schema.get("items") else "values"
    plural = {"a whole number": "whole numbers", "a number": "numbers"}.get(item, item)
    return ("a list of at least one of " if schema.get("minItems") else "a list of ") + plural


def _bounds(schema: Schema) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {show(low)} to {show(high)}"
    parts = [
        f"{word} {show(bound)}"
        for word, bound in (("of at least", low), ("above", above), ("of at most", high), ("below", below))
        if bound is not None
    ]
    return " " + " and ".join(parts) if parts else ""


def choices(schema: Schema) -> list[Any]:
    """The closed set of values of a field, or nothing."""
    if "anyOf" in schema:
        return [choice for option in schema["anyOf"] for choice in choices(option)]
    if "const" in schema:
        return [schema["const"]]
    return list(schema.get("enum", []))


def show(value: Any) -> str:
    """A value as YAML would write it, shortened."""
    if isinstance(value, str):
        return value if len(value) <= 60 else value[:57] + "..."
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    text = json.dumps(value, default=lambda unknown: type(unknown).__name__)
    return text if len(text) <= 60 else text[:57] + "..."
