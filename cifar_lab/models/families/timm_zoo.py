"""Any architecture of timm, at any image size it can take."""

from pathlib import Path
from typing import Annotated, Any

import timm
from pydantic import Field
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from cifar_lab.models import ModelError
from cifar_lab.models.weights import classifier_tensors, describe_mismatch, keep_own_classifier, without_prefix
from cifar_lab.recipe.section import PositiveInt, Rate

HUB_TIMEOUT = 10.0  # seconds


def build(
    num_classes: int,
    image_size: int,
    *,
    arch: Annotated[str, Field(description="timm's name of the architecture, with or without `.tag`.")],
    patch_size: Annotated[
        PositiveInt | None, Field(description="Side of a patch in pixels; null: the architecture's own.")
    ] = None,
    drop_path: Annotated[Rate, Field(description="Rate of stochastic depth.")] = 0.0,
    drop_rate: Annotated[Rate, Field(description="Rate of dropout before the classifier.")] = 0.0,
) -> nn.Module:
    """timm's `arch` (with or without `.tag`), no weights loaded, for (b, 3, image_size, image_size).

    Raises `ModelError` where the architecture is unknown or takes no such argument.
    """
    return _create(arch, image_size, num_classes=num_classes, **_options(patch_size, drop_path, drop_rate))


def build_with_weights(
    weights: dict[str, Tensor], num_classes: int, image_size: int, *, arch: str, **args: Any
) -> nn.Module:
    """The same with `weights` loaded by timm itself, which resizes position embeddings and renames old keys.

    A classifier of another shape is replaced by a new one; anything else that does not fit raises `ModelError`.
    """
    fresh = build(num_classes, image_size, arch=arch, **args)
    modules = fresh.pretrained_cfg.get("classifier") or ()
    weights = without_prefix(weights, fresh.state_dict())
    own = classifier_tensors(fresh, (modules,) if isinstance(modules, str) else tuple(modules))
    del fresh
    # With the classifier's shapes made equal, timm loads strictly and through the architecture's own filter.
    overlay = {"state_dict": keep_own_classifier(weights, own), "num_classes": num_classes}
    model = _create(
        arch, image_size, num_classes=num_classes, pretrained=True, pretrained_cfg_overlay=overlay, **_options(**args)
    )
    model.pretrained_cfg.pop("state_dict", None)  # else the model holds the weights a second time
    return model


def pretrained_file(arch: str, *, local_only: bool = False) -> Path:
    """timm's published weights of `arch` as a safetensors file of the hub's cache, fetched unless `local_only`.

    Raises `ModelError` without waiting when they are neither cached nor within reach.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cfg = _published(arch)
    filename = cfg.hf_hub_filename or "model.safetensors"
    if not cfg.hf_hub_id or not filename.endswith(".safetensors"):
        raise ModelError(f"model.pretrained: timm publishes no safetensors of {arch} on the hub; set model.weights")
    cached = try_to_load_from_cache(cfg.hf_hub_id, filename)
    if isinstance(cached, str):
        return Path(cached)
    try:
        if local_only:
            raise FileNotFoundError("not in the cache")
        # hf_hub_download retries a host that cannot be reached for 23 s (huggingface_hub 2.4.0); this does not.
        get_hf_file_metadata(hf_hub_url(cfg.hf_hub_id, filename), timeout=HUB_TIMEOUT)
        return Path(hf_hub_download(cfg.hf_hub_id, filename))
    except Exception as error:  # the hub's client raises those of whatever HTTP library it uses
        raise ModelError(
            f"model.pretrained: cannot get the weights of {arch} ({str(error).splitlines()[0]}): run"
            " scripts/fetch_weights.py on a machine with network, or set model.weights to a .safetensors file"
        ) from error


def normalisation(arch: str) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and std, a channel each on the 0..1 scale, and side in pixels, that published weights were trained with."""
    cfg = _published(arch)
    return tuple(cfg.mean), tuple(cfg.std), cfg.input_size[-1]


def _published(arch: str) -> PretrainedCfg:
    """What timm says of the published weights of `arch`."""
    try:
        cfg = get_pretrained_cfg(arch, allow_unregistered=False)
    except RuntimeError as error:
        raise ModelError(f"timm publishes no weights: {error}") from error
    assert cfg is not None
    return cfg


def _options(patch_size: int | None = None, drop_path: float = 0.0, drop_rate: float = 0.0) -> dict[str, Any]:
    """The arguments for `create_model`, those that are set: few architectures take all of them."""
    asked = {"patch_size": patch_size, "drop_path_rate": drop_path, "drop_rate": drop_rate}
    return {name: value for name, value in asked.items() if value}


def _create(arch: str, image_size: int, **kwargs: Any) -> nn.Module:
    try:
        try:
            model = timm.create_model(arch, img_size=image_size, **kwargs)
        except TypeError as error:  # what takes any size, such as a convolutional net, has no such argument
            if "img_size" not in str(error):
                raise
            model = timm.create_model(arch, **kwargs)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if str(error).startswith("Error(s) in loading state_dict"):
            raise ModelError(f"model.weights do not fit {arch}: {describe_mismatch(error)}") from error
        raise ModelError(f"timm cannot build {arch} at image_size {image_size} px: {error}") from error
    _check_grid(model, arch, image_size)
    return model


def _check_grid(model: nn.Module, arch: str, image_size: int) -> None:
    """timm's patch embedding silently ignores pixels past the last whole patch."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and image_size % patch[0]:
        lower = image_size // patch[0] * patch[0]
        near = " or ".join(str(size) for size in (lower, lower + patch[0]) if size)
        raise ModelError(f"{arch}: patch size {patch[0]} does not divide image_size {image_size}: take {near}")
