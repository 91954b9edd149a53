"""The arguments of a model family or data source, read from its file without importing it."""

from __future__ import annotations

import ast
import json
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from cifar_lab.recipe.errors import Problem, did_you_mean
from cifar_lab.recipe.validate import said

_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, bool, str, list, tuple, dict)}
_TYPES |= {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "Annotated", "Sequence")}


@dataclass(frozen=True)
class Signature:
    """The arguments that a recipe may give, as pydantic checks them; the `supplied` ones come from the trainer."""

    arguments: type[BaseModel]
    names: tuple[str, ...]
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
    given = definition.args
    positional = [*given.posonlyargs, *given.args]
    required = {argument.arg for argument in positional[: len(positional) - len(given.defaults)]}
    required |= {a.arg for a, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None}
    names = [a for a in (*positional, *given.kwonlyargs) if a.arg not in supplied]
    # Under aliases, since pydantic's models have methods of their own, such as `copy`.
    fields: dict[str, Any] = {
        f"argument_{number}": (
            _type(a.annotation, aliases),
            Field(alias=a.arg) if a.arg in required else Field(None, alias=a.arg),
        )
        for number, a in enumerate(names)
    }
    extra: typing.Literal["allow", "forbid"] = "forbid" if given.kwarg is None else "allow"
    config = ConfigDict(extra=extra, strict=True, allow_inf_nan=False)
    arguments = create_model(function, __config__=config, **fields)
    return Signature(arguments, tuple(a.arg for a in names), frozenset(required - supplied), supplied, extra == "allow")


def _type(annotation: ast.expr | None, aliases: dict[str, ast.expr]) -> Any:
    """The type that an annotation of common types means; Any, which accepts anything, for one of other names."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if annotation is None:
        return Any
    used = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)} & set(aliases)
    others = {name: value for name, value in aliases.items() if name not in used}
    known = _TYPES | {name: _type(aliases[name], others) for name in used}
    try:
        return eval(compile(ast.Expression(annotation), "annotation", "eval"), {"__builtins__": {}}, known)
    except Exception:  # whatever the annotation does with names that are not known here
        return Any


def argument_problems(owner: str, key: str, signature: Signature, given: dict[str, Any]) -> Iterator[Problem]:
    """Unknown, missing and wrong arguments of `owner`; `key` is the dotted key of the arguments."""
    for name in signature.supplied & set(given):
        yield Problem((f"{key}.{name}",), "is set by the trainer from the data; delete it")
    own = {name: value for name, value in given.items() if name not in signature.supplied}
    wrong: dict[str, list[ErrorDetails]] = {}
    try:
        # As JSON, since then a list may stand for a tuple.
        text = json.dumps(own, default=lambda unknown: {}, ensure_ascii=False)
        signature.arguments.model_validate_json(text.encode(errors="replace"))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            index = next((part for part in detail["loc"] if isinstance(part, int)), None)
            wrong.setdefault(name if index is None else f"{name}[{index}]", []).append(detail)
    for name, details in wrong.items():
        if len(details[0]["loc"]) == 1 and details[0]["type"] == "missing":
            message = f"is missing; `{owner}` needs it"
        elif details[0]["type"] == "extra_forbidden":
            known = ", ".join(signature.names) or "none"
            hint = did_you_mean(name, signature.names) or f"; its arguments: {known}"
            message = f"`{owner}` has no such argument{hint}"
        else:
            message = said(details)
        yield Problem((f"{key}.{name}",), message)
