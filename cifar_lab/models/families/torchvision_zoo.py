"""Any classifier of torchvision, at any image size it can take."""

import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from cifar_lab.models import ModelError
from cifar_lab.models.weights import keep_own_classifier, load_weights, without_prefix

TIMEOUT = 10.0  # seconds
# No auxiliary logits; pictures normalised as for the other architectures, as with the published weights.
_INCEPTION = {"aux_logits": False, "transform_input": True, "init_weights": True}
_AUXILIARY = re.compile(r"(AuxLogits|aux1|aux2)\.")
_OLD_DENSENET = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")


@contextmanager
def _on_cpu() -> Iterator[None]:
    with torch.device("cpu"):
        yield


# RegNet reads its widths from tensors while it is built; those on "meta" have no values.
models.regnet.BlockParams.from_init_params = _on_cpu()(models.regnet.BlockParams.from_init_params)


def build(
    num_classes: int,
    image_size: int,
    *,
    arch: Annotated[str, Field(description="torchvision's name of it, with or without `.WEIGHTS` (IMAGENET1K_V2).")],
) -> nn.Module:
    """torchvision's `arch`, no weights loaded, for (b, 3, image_size, image_size). Raises `ModelError`."""
    name = arch.partition(".")[0]
    kinds: dict[str, dict[str, Any]] = {
        "vit": {"image_size": image_size},
        "maxvit": {"input_size": (image_size, image_size)},
    }
    kinds |= dict.fromkeys(("googlenet", "inception"), _INCEPTION)
    options = {"num_classes": num_classes, **kinds.get(name.partition("_")[0], {})}
    try:
        with torch.device("meta"):  # whether a picture goes through
            models.get_model(name, **options).eval()(torch.empty(1, 3, image_size, image_size))
        model: nn.Module = models.get_model(name, **options)
    except (AssertionError, RuntimeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise ModelError(f"torchvision cannot build {arch} for data.image_size={image_size}: {said}") from error
    if name.startswith("mnasnet"):  # its own refuses tensors that do not say of which version of torchvision they are
        model._load_from_state_dict = partial(nn.Module._load_from_state_dict, model)  # type: ignore[method-assign]
    return model


def build_with_weights(weights: dict[str, Tensor], num_classes: int, image_size: int, *, arch: str) -> nn.Module:
    """The same with `weights` loaded; a position embedding is resized as torchvision does it.

    A classifier of another shape, whatever its name, is replaced by a new one; anything else that does not fit raises
    `ModelError`.
    """
    model = build(num_classes, image_size, arch=arch)
    with torch.device("meta"):
        other = build(num_classes + 1, image_size, arch=arch).state_dict()
    own = {k: v.clone() for k, v in model.state_dict().items() if v.shape != other[k].shape}
    weights = without_prefix(weights, model.state_dict())
    weights = {_OLD_DENSENET.sub(r"\1\2", k): tensor for k, tensor in weights.items() if not _AUXILIARY.match(k)}
    if "encoder.pos_embedding" in weights and isinstance(model, models.VisionTransformer):
        weights = dict(interpolate_embeddings(image_size, model.patch_size, weights))
    return load_weights(model, keep_own_classifier(weights, own))


def pretrained_file(arch: str, *, local_only: bool = False) -> Path:
    """torchvision's published weights of `arch` as a safetensors file in torch's cache, fetched unless `local_only`.

    Raises `ModelError` without waiting when they are neither cached nor within reach.
    """
    published = _published(arch)
    pickled = Path(torch.hub.get_dir(), "checkpoints", published.url.rpartition("/")[2])
    file = pickled.with_suffix(".safetensors")
    if file.is_file():
        return file
    try:
        if not pickled.is_file():
            if local_only:
                raise FileNotFoundError("not in the cache")
            # What torch fetches with waits for a silent host without end; this does not.
            urllib.request.urlopen(published.url, timeout=TIMEOUT).close()
        state = published.get_state_dict(check_hash=True, progress=False, map_location="cpu", weights_only=True)
        partial_file = file.with_suffix(f".{os.getpid()}.partial")
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, partial_file)
        partial_file.replace(file)
    except Exception as error:  # of the network, of what unpickles, of the disk
        raise ModelError(
            f"model.pretrained: cannot get the weights of {arch} ({str(error).partition(chr(10))[0]}): put"
            f" {published.url} into {pickled.parent}, or set model.weights to a .safetensors file"
        ) from error
    return file


def normalisation(arch: str) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and std, a channel each on the 0..1 scale, and side in pixels, that published weights were trained with."""
    transforms = _published(arch).transforms()
    return tuple(transforms.mean), tuple(transforms.std), transforms.crop_size[0]


def _published(arch: str) -> Any:
    """The entry of torchvision's published weights of `arch`, which the recipe has checked."""
    name, _, weights = arch.partition(".")
    return models.get_model_weights(name)[weights or "DEFAULT"]
