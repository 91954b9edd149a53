"""Any architecture of timm, at any image size it can take."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg, is_model, split_model_name_tag
from torch import Tensor, nn

from cifar_lab.models import ModelError
from cifar_lab.models.weights import classifier_tensors, describe_mismatch, keep_own_classifier

HUB_TIMEOUT = 10.0  # seconds


def build(
    num_classes: int,
    image_size: int,
    *,
    arch: str,
    patch_size: int | None = None,
    drop_path: float = 0.0,
    drop_rate: float = 0.0,
) -> nn.Module:
    """timm's `arch` (with or without `.tag`), no weights loaded, for (b, 3, image_size, image_size).

    `patch_size` replaces that of a patch-based net, `drop_path` is stochastic depth, `drop_rate` dropout before the
    classifier. Raises `ModelError` where the architecture is unknown or takes no such argument.
    """
    options = _options(arch, image_size, patch_size=patch_size, drop_path=drop_path, drop_rate=drop_rate)
    return _create(arch, image_size, num_classes=num_classes, **options)


def build_with_weights(
    weights: dict[str, Tensor], num_classes: int, image_size: int, *, arch: str, **args: Any
) -> nn.Module:
    """The same with `weights` loaded by timm itself, which resizes position embeddings and renames old keys.

    A classifier of another shape is replaced by a new one; anything else that does not fit raises `ModelError`.
    """
    fresh = build(num_classes, image_size, arch=arch, **args)
    modules = fresh.pretrained_cfg.get("classifier") or ()
    own = classifier_tensors(fresh, (modules,) if isinstance(modules, str) else tuple(modules))
    del fresh
    # With the classifier's shapes made equal, timm loads strictly and through the architecture's own filter.
    options = _options(arch, image_size, **args)
    overlay = {"state_dict": keep_own_classifier(weights, own), "num_classes": num_classes}
    model = _create(
        arch, image_size, num_classes=num_classes, pretrained=True, pretrained_cfg_overlay=overlay, **options
    )
    model.pretrained_cfg.pop("state_dict", None)  # else the model holds the weights a second time
    return model


def pretrained_file(arch: str, *, local_only: bool = False) -> Path:
    """timm's published weights of `arch` as a safetensors file of the hub's cache, fetched unless `local_only`.

    Raises `ModelError` without waiting when they are neither cached nor within reach.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    _check_arch(arch)
    cfg = get_pretrained_cfg(arch)
    if cfg is None or not cfg.hf_hub_id:
        raise ModelError(f"model.pretrained: timm publishes no weights for {arch} on the hub; set model.weights")
    filename = cfg.hf_hub_filename or "model.safetensors"
    if not filename.endswith(".safetensors"):
        raise ModelError(f"model.pretrained: the weights of {arch} are not safetensors; set model.weights")
    try:
        return Path(hf_hub_download(cfg.hf_hub_id, filename, local_files_only=True))
    except FileNotFoundError:
        pass
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


def normalisation(arch: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, a channel each on the 0..1 scale, that the published weights were trained with."""
    _check_arch(arch)
    cfg = get_pretrained_cfg(arch)
    if cfg is None:
        raise ModelError(f"timm knows no normalisation for {arch}; set data.mean and data.std")
    return tuple(cfg.mean), tuple(cfg.std)


def _check_arch(arch: str) -> None:
    name, tag = split_model_name_tag(arch)
    if not is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ModelError(f"timm has no architecture {arch!r}: {hint}")
    try:
        known = not tag or get_pretrained_cfg(arch, allow_unregistered=False) is not None
    except RuntimeError:
        known = False
    if not known:
        tags = ", ".join(timm.list_models(f"{name}.*", pretrained=True)) or "none"
        raise ModelError(f"timm has no weights {tag!r} of {name}; published: {tags}")


def _options(
    arch: str, image_size: int, *, patch_size: int | None = None, drop_path: float = 0.0, drop_rate: float = 0.0
) -> dict[str, Any]:
    """The arguments for `create_model`: those that are set, checked against what the architecture takes."""
    _check_arch(arch)
    accepted = _constructor_arguments(arch)
    asked = {
        "patch_size": ("patch_size", patch_size, None),
        "drop_path": ("drop_path_rate", drop_path, 0.0),
        "drop_rate": ("drop_rate", drop_rate, 0.0),
    }
    options: dict[str, Any] = {}
    for ours, (theirs, value, default) in asked.items():
        if value == default:
            continue
        if theirs not in accepted:
            raise ModelError(f"{arch} takes no {ours}: remove model.args.{ours}")
        options[theirs] = value
    if "img_size" in accepted:
        options["img_size"] = image_size
    return options


def _constructor_arguments(arch: str) -> set[str]:
    """Names of the arguments of the model's class and, where it passes `**kwargs` on, of its base classes.

    The class is known only from an instance: entry points are functions with `**kwargs`. On the meta device one costs
    a tenth of a second.
    """
    with torch.device("meta"):
        model = timm.create_model(arch)
    names: set[str] = set()
    for base in type(model).__mro__:
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        names |= parameters.keys()
        if not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values()):
            break
    return names


def _create(arch: str, image_size: int, **kwargs: Any) -> nn.Module:
    try:
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
