"""From a recipe's `model` section to a network with its initial weights; the recipe has checked names and arguments."""

import importlib
import json
import logging
from types import ModuleType

import torch
from torch import nn

from cifar_lab.errors import UserError
from cifar_lab.models import ModelError
from cifar_lab.models.description import DESCRIPTION, read_description
from cifar_lab.models.weights import load_weights, read_weights, weights_file
from cifar_lab.recipe import outside
from cifar_lab.recipe.schema import Model

__all__ = ["ModelError", "build_meta", "build_model", "num_parameters", "own_normalisation"]

logger = logging.getLogger("cifar_lab")


def build_model(model: Model, num_classes: int, image_size: int, *, seed: int, pretrained_ok: bool = True) -> nn.Module:
    """The network on the CPU in fp32 with its initial weights, the same for every process and device.

    Images (b, 3, image_size, image_size) to logits (b, num_classes). Leaves the random state untouched.
    `pretrained_ok=False` skips `pretrained` and `weights`, for a caller that loads a checkpoint next.
    Raises `ModelError` where the section cannot be built or its weights do not fit.
    """
    family = find_family(model.name)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        if not pretrained_ok or not (model.pretrained or model.weights):
            return family.build(num_classes, image_size, **model.args)
        weights = read_weights(model.weights or family.pretrained_file(model.args["arch"]))
        if hasattr(family, "build_with_weights"):
            return family.build_with_weights(weights, num_classes, image_size, **model.args)
        return load_weights(family.build(num_classes, image_size, **model.args), weights)


def build_meta(model: Model, num_classes: int, image_size: int) -> nn.Module:
    """The network on the meta device: shapes and names, no memory and no weights."""
    with torch.device("meta"):
        return find_family(model.name).build(num_classes, image_size, **model.args)


def num_parameters(model: nn.Module) -> int:
    """Parameters, trained and frozen, of a real or meta network."""
    return sum(parameter.numel() for parameter in model.parameters())


def own_normalisation(model: Model) -> tuple[tuple[float, ...], tuple[float, ...], str] | None:
    """Mean and standard deviation a channel that the initial weights expect, and who says so; None if nobody does.

    That is the model.json beside `weights`, as a run has it, or timm's config.json, as an export has it, else the
    family for published weights. Raises UserError.
    """
    family = find_family(model.name)
    if not (model.pretrained or model.weights):
        return None
    folder = weights_file(model.weights).parent if model.weights else None
    if folder is not None and (folder / DESCRIPTION).exists():
        try:
            description = read_description(folder)
        except UserError as error:
            raise ModelError(f"model.weights: {error}; correct or remove it, or give data.mean and data.std") from None
        return description.mean, description.std, str(folder / DESCRIPTION)
    if not hasattr(family, "normalisation"):
        return None
    if folder is not None and (config := folder / "config.json").exists():
        try:
            found = json.loads(config.read_bytes())
            numbers = found.get("pretrained_cfg", found)
            return tuple(numbers["mean"]), tuple(numbers["std"]), str(config)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            logger.warning("initial weights: %s tells no normalisation", config)
    mean, std, size = family.normalisation(model.args["arch"])
    return mean, std, f"the weights published of {model.args['arch']}, which were trained at {size} px"


def find_family(name: str) -> ModuleType:
    """The module of a family; recipes name only those that are there. Raises RecipeError for a broken file."""
    if outside.is_outside(name):
        return outside.load(name)
    return importlib.import_module(f"cifar_lab.models.families.{name}")
