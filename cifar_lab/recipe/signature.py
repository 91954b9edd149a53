"""The arguments of a model family or data source, read from its file without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab.recipe.errors import Problem, did_you_mean
from cifar_lab.recipe.wording import Schema, expected, fits, mismatch

_TYPES: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "None": {"type": "null"},
}
_LISTS = ("tuple", "list", "Tuple", "List", "Sequence")


@dataclass(frozen=True)
class Signature:
    """JSON schemas of the arguments a recipe may give; the `supplied` ones come from the trainer."""

    parameters: dict[str, Schema]
    required: frozenset[str]
    supplied: frozenset[str]
    open: bool  # takes any further keyword


def plugin_names(folder: Path) -> list[str]:
    """The names a recipe may use: the public module files of a folder."""
    return sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))


def defines(path: Path, function: str) -> bool:
    """Whether a file has a top-level function of that name."""
    return re.search(rf"^def {function}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def read_signature(path: Path, function: str, supplied: frozenset[str]) -> Signature | None:
    """The signature of a top-level function of a file, or None when the file has no such function."""
    module = ast.parse(path.read_bytes(), filename=str(path))
    definition = next((n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == function), None)
    if definition is None:
        return None
    aliases = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    arguments = definition.args
    positional = [*arguments.posonlyargs, *arguments.args]
    num_required = len(positional) - len(arguments.defaults)
    required = {argument.arg for argument in positional[:num_required]}
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is None:
            required.add(argument.arg)
    parameters = {
        argument.arg: _schema(argument.annotation, aliases)
        for argument in (*positional, *arguments.kwonlyargs)
        if argument.arg not in supplied
    }
    return Signature(parameters, frozenset(required - supplied), supplied, arguments.kwarg is not None)


def _schema(annotation: ast.expr | None, aliases: dict[str, ast.expr]) -> Schema:
    """A JSON schema for a type annotation; `{}`, which accepts anything, for one that is not understood."""
    match annotation:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Name(id=name) if name in aliases:
            others = {alias: value for alias, value in aliases.items() if alias != name}
            return _schema(aliases[name], others)
        case ast.Name(id=name) if name in _LISTS:
            return {"type": "array"}
        case ast.Constant(value=None):
            return _TYPES["None"]
        case ast.Constant(value=str(text)):
            return _schema(ast.parse(text, mode="eval").body, aliases)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _any_of([_schema(left, aliases), _schema(right, aliases)])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            return _subscript(name, inner, aliases)
    return {}


def _subscript(name: str, inner: ast.expr, aliases: dict[str, ast.expr]) -> Schema:
    items = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if name == "Literal":
        return {"enum": [ast.literal_eval(item) for item in items]}
    if name == "Annotated":
        return _schema(items[0], aliases)
    if name == "Optional":
        return _any_of([_schema(inner, aliases), _TYPES["None"]])
    if name == "Union":
        return _any_of([_schema(item, aliases) for item in items])
    if name not in _LISTS:
        return {}
    if name.lower() == "tuple" and not any(isinstance(item, ast.Constant) and item.value is ... for item in items):
        return {"type": "array", "prefixItems": [_schema(item, aliases) for item in items]}
    return {"type": "array", "items": _schema(items[0], aliases)}


def _any_of(options: list[Schema]) -> Schema:
    if {} in options:
        return {}
    return {"anyOf": [part for option in options for part in option.get("anyOf", [option])]}


def argument_problems(owner: str, key: str, signature: Signature, given: dict[str, Any]) -> Iterator[Problem]:
    """Unknown, missing and wrong arguments of `owner`; `key` is the dotted key of the arguments."""
    for name, value in given.items():
        place = (f"{key}.{name}",)
        if name in signature.supplied:
            yield Problem(place, "is set by the trainer from the data; delete it")
        elif name in signature.parameters:
            if not fits(value, signature.parameters[name]):
                yield Problem(place, mismatch(signature.parameters[name], value))
        elif not signature.open:
            hint = did_you_mean(name, signature.parameters)
            known = ", ".join(signature.parameters) or "none"
            yield Problem(place, f"`{owner}` has no such argument{hint or f'; its arguments: {known}'}")
    for name in signature.parameters:
        if name in signature.required and name not in given:
            wanted = expected(signature.parameters[name])
            yield Problem((f"{key}.{name}",), f"is missing; `{owner}` needs it: {wanted}")
