"""Reading initial weights (safetensors only, never pickle) and matching them to a model by name."""

import logging
import math
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cifar_lab.models import ModelError

logger = logging.getLogger("cifar_lab")


def weights_file(path: str | Path) -> Path:
    """What `model.weights` names: a .safetensors file, or that of a run directory."""
    return Path(path, "model.safetensors") if Path(path).is_dir() else Path(path)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a run directory's model.safetensors; floating ones as fp32.

    Raises ModelError for a file that cannot be read, or that holds NaN or infinite values.
    """
    file = weights_file(path)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"model.weights: {file} cannot be read: {error}") from error
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not _finite(tensor)]
    if broken:
        raise ModelError(
            f"model.weights: {file} holds NaN or infinite values ({len(broken)} of {len(weights)} tensors, the first "
            f"is {broken[0]}); take the weights of a run that did not diverge, or copy the file again"
        )
    return weights


def _finite(tensor: Tensor) -> bool:
    """Whether all values are; the sum, which tells nearly always, takes a twentieth of the time."""
    return math.isfinite(tensor.sum()) or bool(tensor.isfinite().all())


def without_prefix(weights: dict[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The weights without what DataParallel, the compiler or a wrapper put in front of every name; `own`: a model's."""
    shared = (os.path.commonprefix(list(names)) for names in (weights, own))  # noqa: RUF071 (of characters)
    front, expected = (re.findall(r"^(?:(?:module|model|_orig_mod)\.)*", text)[0] for text in shared)
    front = front.removesuffix(expected)
    if front:
        logger.info("initial weights: `%s` in front of every name is left out", front)
    return {name.removeprefix(front): tensor for name, tensor in weights.items()}


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Load by name, strictly, but for the classifier `head`, which stays as it is where its shape differs.

    A model may offer `adapt_weights(weights) -> weights`, for instance to resize a position embedding.
    """
    weights = without_prefix(weights, model.state_dict())
    adapt = getattr(model, "adapt_weights", None)
    weights = adapt(weights) if adapt else weights
    weights = keep_own_classifier(weights, classifier_tensors(model, ("head",)))
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ModelError(f"model.weights do not fit the model: {describe_mismatch(error)}") from error
    return model


def classifier_tensors(model: nn.Module, modules: tuple[str, ...]) -> dict[str, Tensor]:
    """Copies of the tensors of those modules, under their full names."""
    prefixes = tuple(f"{name}." for name in modules)
    return {k: v.detach().clone() for k, v in model.state_dict().items() if k.startswith(prefixes)}


def keep_own_classifier(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with the classifier's tensors replaced by the model's `own` unless all their shapes agree."""
    shapes = {name: tuple(weights[name].shape) if name in weights else None for name in own}
    if all(shapes[name] == tuple(tensor.shape) for name, tensor in own.items()):
        return weights
    found = ", ".join(f"{name} {shape or 'missing'}" for name, shape in shapes.items())
    logger.info("initial weights: the classifier is new (in the weights: %s)", found)
    return {**weights, **own}


def describe_mismatch(error: RuntimeError) -> str:
    """`load_state_dict`'s complaint in one line, of which a large model's first names are enough."""
    _, _, complaint = str(error).partition("\n")
    return textwrap.shorten(complaint or str(error), 300, placeholder=" ...")
