"""Model families and data sources: their names and arguments, read from their files without importing them."""

import ast
import importlib.util
import json
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from cifar_lab.recipe import outside
from cifar_lab.recipe.errors import Problem, did_you_mean, grouped, said
from cifar_lab.recipe.section import PositiveFloat, PositiveInt, Rate

_PACKAGE = Path(__file__).parents[1]
_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, bool, str, list, tuple, dict)}
_TYPES |= {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "Sequence")}
_TYPES |= {"PositiveInt": PositiveInt, "PositiveFloat": PositiveFloat, "Rate": Rate}
ZOOS = ("timm_zoo", "torchvision_zoo")  # families of another package's architectures, each named by `arch`
# An architecture, and torchvision's class of its weights.
_ENTRY_POINTS = {
    "timm": re.compile(r"^@register_model\s*\ndef (\w+)\(()", re.MULTILINE),
    "torchvision": re.compile(
        r"^@register_model\(\)\n(?:[@ )].*\n)*?def (\w+)\(\s*\*, weights: Optional\[(\w+)\]", re.MULTILINE
    ),
}
_DEPRECATED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)\}\)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """A section of a recipe whose name is a file of `folder` and whose args are arguments of that file's `function`.

    The trainer gives the arguments `supplied`.
    """

    section: str
    words: str
    folder: Path
    function: str
    supplied: frozenset[str]
    others: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The names a recipe may use: the public module files of the folder."""
        return sorted(path.stem for path in self.folder.glob("*.py") if not path.name.startswith("_"))

    def file(self, name: str) -> Path:
        """The file of a name, in the folder or outside of it."""
        return outside.place(name) if outside.is_outside(name) else self.folder / f"{name}.py"

    def problems(self, name: str, args: dict[str, Any]) -> Iterator[Problem]:
        """An unknown name, and unknown, missing and wrong arguments."""
        if outside.is_outside(name) and not self.file(name).is_file():
            return  # of a finished run; whoever loads it says so
        if not outside.is_outside(name) and name not in self.names():
            hint = did_you_mean(name, self.names()) or f"; there are {', '.join(self.names())}, or a file as ./mine.py"
            yield Problem((f"{self.section}.name",), f"there is no {self.words} `{name}`{hint}")
            return
        try:
            found = _functions(self.file(name))
            arguments = self.arguments(name)
        except SyntaxError as error:
            place = f"{self.file(name)}:{error.lineno}"
            yield Problem((f"{self.section}.name",), f"{place}: {error.msg}; correct that file")
            return
        lacks = [function for function in (self.function, *self.others) if function not in found]
        if arguments is None or lacks:
            message = f"{self.file(name)} has no function `{lacks[0]}`, so it is not a {self.words}"
            yield Problem((f"{self.section}.name",), message)
            return
        for argument, message in _argument_problems(name.partition("#")[0], arguments, self.supplied, args):
            yield Problem((f"{self.section}.args.{argument}",), message)

    def arguments(self, name: str) -> type[BaseModel] | None:
        """What a recipe may give, as a model by which pydantic checks it; None where the file lacks the function.

        Each field has its default, and as description the one of `Annotated[..., Field(description=...)]`.
        """
        path = self.file(name)
        module = ast.parse(path.read_bytes(), filename=str(path))
        definition = next((n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == self.function), None)
        if definition is None:
            return None
        aliases = _aliases(module)
        given = definition.args
        positional = [*given.posonlyargs, *given.args]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
        defaults += [*given.defaults, *given.kw_defaults]
        # Under aliases, since pydantic's models have methods of their own, such as `copy`.
        fields: dict[str, Any] = {
            f"argument_{number}": (_type(a.annotation, aliases), Field(_default(default), alias=a.arg))
            for number, (a, default) in enumerate(zip([*positional, *given.kwonlyargs], defaults, strict=True))
            if a.arg not in self.supplied
        }
        config = ConfigDict(extra="allow" if given.kwarg else "forbid", strict=True, allow_inf_nan=False)
        return create_model(self.function, __config__=config, **fields)


FAMILIES = Kind(
    "model", "model family", _PACKAGE / "models/families", "build", frozenset({"num_classes", "image_size"})
)
SOURCES = Kind("data", "data source", _PACKAGE / "data/sources", "load", frozenset({"split", "root"}), ("cache_key",))


def _functions(path: Path) -> set[str]:
    """The functions of a file."""
    return {node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef)}


def _default(node: ast.expr | None) -> Any:
    """A default's value, or its text where it is no constant; `...` where the argument has none."""
    if node is None:
        return ...
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _aliases(module: ast.Module) -> dict[str, ast.expr]:
    """What names of a module stand for; those of shared arguments count where any of them is imported."""
    found: dict[str, ast.expr] = {}
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.module == "cifar_lab.data.arguments":
            found |= _aliases(ast.parse((_PACKAGE / "data" / "arguments.py").read_bytes()))
        elif isinstance(node, ast.Assign):
            found |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
    return found


def _type(node: ast.expr | None, aliases: dict[str, ast.expr]) -> Any:
    """The type that an annotation of common types means; Any, which accepts anything, for one of other names."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _type(ast.parse(text, mode="eval").body, aliases)
        case ast.Name(id=name) if name in aliases:
            return _type(aliases[name], {other: value for other, value in aliases.items() if other != name})
        case ast.Name(id=name):
            return _TYPES.get(name, Any)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_type(left, aliases), _type(right, aliases)]  # noqa: UP007, of objects
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            return typing.Literal[ast.literal_eval(values)]
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, ast.Call(keywords=limits)])):
            bounds = {str(limit.arg): ast.literal_eval(limit.value) for limit in limits}
            return typing.Annotated[_type(inner, aliases), Field(**bounds)]
        case ast.Subscript(value=ast.Name(id=name), slice=inner) if name in _TYPES:
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            inside = tuple(... if ast.unparse(part) == "..." else _type(part, aliases) for part in parts)
            return _TYPES[name][inside if len(inside) > 1 else inside[0]]
    return Any


def _argument_problems(
    owner: str, arguments: type[BaseModel], supplied: frozenset[str], given: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    for name in supplied & set(given):
        yield name, "is set by the trainer from the data; delete it"
    try:
        # As JSON, since then a list may stand for a tuple.
        own = {name: value for name, value in given.items() if name not in supplied}
        text = json.dumps(own, default=lambda unknown: {}, ensure_ascii=False)
        arguments.model_validate_json(text.encode(errors="replace"))
    except ValidationError as error:
        names = [str(field.alias) for field in arguments.model_fields.values()]
        for key, details in grouped(error.errors(include_url=False), lambda loc: loc[:1]).items():
            if details[0]["type"] == "extra_forbidden":
                hint = did_you_mean(key, names) or f"; its arguments: {', '.join(names) or 'none'}"
                yield key, f"`{owner}` has no such argument{hint}"
            elif details[0]["type"] == "missing" and key in names:
                yield key, f"is missing; `{owner}` needs it"
            else:
                yield key, said(details)


def arch_problem(family: str, arch: str) -> str | None:
    """What is wrong with a name such as `vit_tiny_patch16_224.augreg_in21k` in a family of ZOOS, or None."""
    package = family.removesuffix("_zoo")
    texts, names = _published(package)
    if not texts:
        return f"{package} is not installed; pip install {package}"
    name, _, tag = arch.partition(".")
    if name not in names:
        renamed = "".join(block for text in texts for block in _DEPRECATED.findall(text))
        return None if f"'{arch}'" in renamed else f"{package} has no architecture `{name}`{did_you_mean(name, names)}"
    if tag:
        members = rf"^class {names[name]}\(WeightsEnum\):\n((?:    .*\n|\n)*)"
        blocks = [b for text in texts for b in re.findall(members, text, re.MULTILINE)] if names[name] else texts
        word = r"^    (\w+) = " if names[name] else rf"""['"]{name}\.(\w+)['"]"""
        tags = {found for block in blocks for found in re.findall(word, block, re.MULTILINE)}
        if tags and tag not in tags:  # a few tags are put together by code: timm itself has the last word on those
            known = ", ".join(sorted(tags))
            return f"`{name}` has no weights tagged `{tag}`{did_you_mean(tag, tags) or f'; published: {known}'}"
    return None


@cache
def _published(package: str) -> tuple[list[str], dict[str, str]]:
    """A package's files of models, and the architectures in them: importing it would take seconds."""
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else None
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")] if folder else []
    return texts, {name: weights for text in texts for name, weights in _ENTRY_POINTS[package].findall(text)}
