"""Plain words for what a field expects (read from its JSON schema) and for what was found there."""

from __future__ import annotations

import json
import math
from typing import Any

from cifar_lab.recipe.errors import nearest
from cifar_lab.recipe.yaml_text import scalar

Schema = dict[str, Any]
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a section of keys",
}
_BOOLEAN_WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


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


def found(value: Any) -> str:
    """A value in a message: text in quotes, so that "5" and 5 look different."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section of keys" if value else "{}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}"
    return f'"{show(value)}"' if isinstance(value, str) else show(value)


def mismatch(schema: Schema, value: Any) -> str:
    """`expected ..., found ...`, with a suggestion where the intention can be guessed."""
    guess = _guess(schema, value)
    return f"expected {expected(schema)}, found {found(value)}" + (f" (did you mean {guess}?)" if guess else "")


def _guess(schema: Schema, value: Any) -> str | None:
    types = {option.get("type") for option in schema.get("anyOf", [schema])}
    if "integer" in types and isinstance(value, float) and value.is_integer() and fits(int(value), schema):
        return f"`{int(value)}`"
    if types == {"string"} and not choices(schema) and isinstance(value, bool | int | float):
        return f'"{show(value)}", in quotes'
    if "array" in types and isinstance(value, int | float) and not isinstance(value, bool):
        return f"`[{show(value)}]`"
    if value is None and types == {"object"}:
        return "to leave the line out"
    return _guess_from_text(schema, value, types) if isinstance(value, str) else None


def _guess_from_text(schema: Schema, text: str, types: set[str | None]) -> str | None:
    if "boolean" in types and text.lower() in _BOOLEAN_WORDS:
        return f"`{_BOOLEAN_WORDS[text.lower()]}`"
    if "null" in types and text.lower() in ("none", "nil", "null"):
        return "`null`"
    near = nearest(text, [choice for choice in choices(schema) if isinstance(choice, str)])
    if near:
        return f"`{near}`"
    if "array" in types and "," in text:
        return f"`[{text}]`"
    number = scalar(text.strip().replace("_", "").replace(",", "").lstrip("0") or "0")
    return f"`{show(number)}`" if not isinstance(number, str) and fits(number, schema) else None


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value obeys a (small) JSON schema; whole numbers are numbers, true and false are not."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if choices(schema):
        return any(type(value) is type(choice) and value == choice for choice in choices(schema))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        allowed = int if kind == "integer" else int | float
        return isinstance(value, allowed) and not isinstance(value, bool) and _within(value, schema)
    if kind == "array":
        return isinstance(value, list | tuple) and _items_fit(value, schema)
    python_types = {"string": str, "boolean": bool, "null": type(None), "object": dict}
    return kind not in python_types or isinstance(value, python_types[kind])


def _items_fit(values: list[Any] | tuple[Any, ...], schema: Schema) -> bool:
    if "prefixItems" in schema:
        items = schema["prefixItems"]
        return len(values) == len(items) and all(fits(value, item) for value, item in zip(values, items, strict=True))
    return all(fits(value, schema.get("items", {})) for value in values)


def _within(value: float, schema: Schema) -> bool:
    return (
        math.isfinite(value)
        and value >= schema.get("minimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
    )
