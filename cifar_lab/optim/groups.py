"""Optimizers whose parameter groups know what is decayed and at which part of the learning rate."""

import fnmatch
from typing import Any

import torch
from torch import nn

from cifar_lab.errors import UsageError
from cifar_lab.optim.muon import Muon
from cifar_lab.recipe.schema import Optim


def make_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Fused SGD or AdamW, or Muon, over the trainable parameters of `model`.

    Each group carries `lr_scale` (1 but for layer-wise decay), `weight_decay` and the `names` of its parameters.
    All honour scalar tensors `grad_scale` and `found_inf` set on them, on every device.
    """
    if optim.name == "muon":
        return _make_muon(model, optim)
    groups = parameter_groups(model, weight_decay=optim.weight_decay, layer_decay=optim.layer_decay)
    optimizer: torch.optim.Optimizer
    if optim.name == "sgd":
        optimizer = torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=True)
    else:
        first, second = optim.betas
        optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=(first, second), eps=optim.eps, fused=True)
    set_lr(optimizer, optim.lr)
    return optimizer


def _make_muon(model: nn.Module, optim: Optim) -> Muon:
    """Muon with three kinds of groups: kernels, other decayed parameters (`head_lr`), undecayed ones (`bias_lr`).

    Raises UsageError where the kernels are less than half of the parameters: that would be SGD under another name.
    """
    # With groups, as in depthwise convolutions, the rows of (out, in * h * w) belong to different inputs: no matrix.
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1}
    kernels: dict[str, Any] = {"params": [], "names": [], "lr_scale": 1.0, "weight_decay": 0.0, "orthogonal": True}
    groups = [kernels]
    undecayed = _undecayed_names(model)
    for group in parameter_groups(model, weight_decay=optim.weight_decay):
        lr = (optim.bias_lr if group["names"][0] in undecayed else optim.head_lr) or optim.lr
        rest = {**group, "params": [], "names": [], "lr_scale": lr / optim.lr, "momentum": optim.rest_momentum}
        for name, parameter in zip(group["names"], group["params"], strict=True):
            into = kernels if id(parameter) in matrices else rest
            into["params"].append(parameter)
            into["names"].append(name)
        groups.append(rest)
    count, taken = (sum(p.numel() for group in some for p in group["params"]) for some in (groups, [kernels]))
    if 2 * taken < count:
        raise UsageError(
            f"optim.name: muon is for kernels of convolutions without groups, and these are {100 * taken / count:.1f} %"
            f" of the parameters that {type(model).__name__} trains, less than half: use adamw or sgd"
        )
    optimizer = Muon(
        [group for group in groups if group["params"]], lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov
    )
    set_lr(optimizer, optim.lr)
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its `lr_scale` of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def parameter_groups(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups of trainable parameters, from the input to the classifier, decayed ones before undecayed ones.

    Biases, norms, parameters of at most one dimension and what `model.no_weight_decay()` names are not decayed.
    """
    undecayed = _undecayed_names(model)
    layers = _layer_ids(model) if layer_decay < 1 else {}
    last = max(layers.values(), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layers.get(name, last)
        key = (layer, name in undecayed)
        if key not in groups:
            scale = layer_decay ** (last - layer)
            decay = 0.0 if name in undecayed else weight_decay
            groups[key] = {"params": [], "names": [], "lr_scale": scale, "weight_decay": decay}
        groups[key]["params"].append(parameter)
        groups[key]["names"].append(name)
    if not groups:
        raise UsageError("the model has no trainable parameters")
    return [groups[key] for key in sorted(groups)]


def _undecayed_names(model: nn.Module) -> set[str]:
    patterns = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # timm's convention
    norms = {id(p) for m in model.modules() if isinstance(m, (nn.LayerNorm, nn.RMSNorm)) for p in m.parameters()}
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim <= 1  # all norms but those over several dimensions
        or id(parameter) in norms
        or name.rpartition(".")[2] == "bias"
        or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def _layer_ids(model: nn.Module) -> dict[str, int]:
    """Layer of each parameter, 0 at the input, as in BEiT (arXiv 2106.08254) and timm's `param_groups_layer_decay`."""
    if not hasattr(model, "group_matcher"):
        raise UsageError(
            f"optim.layer_decay needs a model with group_matcher (vit, timm_zoo); {type(model).__name__} has none:"
            " remove optim.layer_decay"
        )
    from timm.models import group_parameters  # 3 s to import, and only this needs it

    ids: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return ids
