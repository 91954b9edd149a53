"""From a recipe's `model` section to a network with its initial weights."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cifar_lab.models import ModelError
from cifar_lab.models import families as family_files
from cifar_lab.models.weights import load_weights, read_weights
from cifar_lab.recipe.schema import Model

__all__ = ["ModelError", "build_meta", "build_model", "families", "num_parameters", "own_normalisation"]


def families() -> list[str]:
    """Names of the model families: the files of cifar_lab/models/families that do not start with `_`."""
    return sorted(file.stem for file in Path(family_files.__path__[0]).glob("[!_]*.py"))


def build_model(model: Model, num_classes: int, image_size: int, *, seed: int, pretrained_ok: bool = True) -> nn.Module:
    """The network on the CPU in fp32 with its initial weights, the same for every process and device.

    Images (b, 3, image_size, image_size) to logits (b, num_classes). Leaves the random state untouched.
    `pretrained_ok=False` skips `pretrained` and `weights`, for a caller that loads a checkpoint next.
    Raises `ModelError` where the section cannot be built or its weights do not fit.
    """
    family, args = _family(model)
    if model.pretrained and model.weights is not None:
        raise ModelError("model.pretrained and model.weights exclude each other: remove one")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        if not pretrained_ok or not (model.pretrained or model.weights):
            return _call(family.build, model, num_classes, image_size, **args)
        weights = read_weights(model.weights or _pretrained_file(model, family))
        if hasattr(family, "build_with_weights"):
            return _call(family.build_with_weights, model, weights, num_classes, image_size, **args)
        return load_weights(_call(family.build, model, num_classes, image_size, **args), weights)


def build_meta(model: Model, num_classes: int, image_size: int) -> nn.Module:
    """The network on the meta device: shapes and names, no memory and no weights."""
    family, args = _family(model)
    with torch.device("meta"):
        return _call(family.build, model, num_classes, image_size, **args)


def num_parameters(model: nn.Module) -> int:
    """Parameters, trained and frozen, of a real or meta network."""
    return sum(parameter.numel() for parameter in model.parameters())


def own_normalisation(model: Model) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation a channel that the initial weights expect; None where there are no such weights."""
    family, args = _family(model)
    if not (model.pretrained or model.weights) or not hasattr(family, "normalisation"):
        return None
    return family.normalisation(args.get("arch", ""))


def _family(model: Model) -> tuple[ModuleType, dict[str, Any]]:
    if model.name not in families():
        near = difflib.get_close_matches(model.name, families(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(families())}"
        raise ModelError(f"model.name: there is no model family {model.name!r}: {hint}")
    return importlib.import_module(f"cifar_lab.models.families.{model.name}"), dict(model.args)


def _call(function: Callable[..., nn.Module], model: Model, *positional: Any, **args: Any) -> nn.Module:
    try:
        inspect.signature(function).bind(*positional, **args)
    except TypeError as error:
        raise ModelError(f"model.args: {model.name}: {error}") from None
    return function(*positional, **args)


def _pretrained_file(model: Model, family: ModuleType) -> Path:
    if not hasattr(family, "pretrained_file"):
        raise ModelError(f"model.pretrained: {model.name} has no published weights; set model.weights or remove it")
    return family.pretrained_file(model.args.get("arch", ""))
