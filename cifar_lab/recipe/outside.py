"""What a recipe refers to outside itself: a family and a source with their arguments, weights, data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab.recipe.errors import Problem, did_you_mean
from cifar_lab.recipe.schema import Recipe
from cifar_lab.recipe.signature import argument_problems, defines, plugin_names, read_signature
from cifar_lab.recipe.timm_names import architecture_problem

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Folders:
    """Where model families and data sources live."""

    models: Path = _PACKAGE / "models" / "families"
    sources: Path = _PACKAGE / "data" / "sources"


def reference_problems(recipe: Recipe, folders: Folders) -> Iterator[Problem]:
    """Unknown names and wrong arguments."""
    supplied = frozenset({"num_classes", "image_size"})
    model, data = recipe.model, recipe.data
    yield from _plugin(folders.models, "build", supplied, ("model", "model family"), (model.name, model.args))
    family = folders.models / f"{model.name}.py"
    if model.pretrained and model.name in plugin_names(folders.models) and not defines(family, "pretrained_file"):
        yield Problem(
            ("model.pretrained", "model.name"),
            f"the family {model.name} has no published weights; set it to false, or use `model.name: timm_zoo`",
        )
    supplied = frozenset({"split", "root"})
    yield from _plugin(folders.sources, "load", supplied, ("data", "data source"), (data.name, data.args))
    if model.name == "timm_zoo" and isinstance(model.args.get("arch"), str):
        problem = architecture_problem(model.args["arch"])
        if problem:
            yield Problem(("model.args.arch",), problem)


def _plugin(
    folder: Path, function: str, supplied: frozenset[str], words: tuple[str, str], given: tuple[str, dict[str, Any]]
) -> Iterator[Problem]:
    section, kind = words
    name, args = given
    names = plugin_names(folder)
    if name not in names:
        hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
        yield Problem((f"{section}.name",), f"there is no {kind} `{name}`{hint}")
        return
    path = folder / f"{name}.py"
    try:
        signature = read_signature(path, function, supplied)
    except SyntaxError as error:
        yield Problem((f"{section}.name",), f"{path}:{error.lineno}: {error.msg}; mend that file")
        return
    if signature is None:
        yield Problem((f"{section}.name",), f"{path} has no function `{function}`, so it is no {kind}")
    else:
        yield from argument_problems(name, f"{section}.args", signature, args)


def file_problems(recipe: Recipe) -> Iterator[Problem]:
    """Weights and data that are not there."""
    if recipe.model.weights is not None:
        problem = _weights_problem(Path(recipe.model.weights))
        if problem:
            yield Problem(("model.weights",), problem)
    if recipe.data.root is not None and not Path(recipe.data.root).exists():
        yield Problem(
            ("data.root",),
            f"{recipe.data.root} does not exist{_seen_from(Path(recipe.data.root))}; correct it, or leave it "
            "out to look in $CIFAR_LAB_DATA and ./data",
        )


def _weights_problem(path: Path) -> str | None:
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return None
        return f"the directory {path} holds no model.safetensors; name a finished run or a .safetensors file"
    if not path.exists():
        near = did_you_mean(path.name, [child.name for child in path.parent.glob("*.safetensors")])
        return f"{path} does not exist{_seen_from(path)}{near}; name a .safetensors file or a finished run's directory"
    if path.suffix != ".safetensors":
        return f"{path} is no .safetensors file; pickled weights are refused, convert them with safetensors"
    return None


def _seen_from(path: Path) -> str:
    return "" if path.is_absolute() else f" (seen from {Path.cwd()})"
