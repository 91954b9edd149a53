"""Recipe options that change how a model runs and not what it computes."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cifar_lab.errors import UserError
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.support import unsupported
from cifar_lab.runtime.world import World


class OptionError(UserError):
    """An option that this model or machine does not support."""

    exit_status = 2


def uses_channels_last(model: nn.Module, recipe: Recipe) -> bool:
    """Whether pictures and weights are kept as NHWC: for nets of convolutions, not for one that embeds patches."""
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in model.modules())
    return recipe.train.channels_last and convolutions > 1


def apply_options(model: nn.Module, recipe: Recipe, world: World, strategy: str) -> nn.Module:
    """`model` on the device of `world`, set up as the recipe's `train` section says. Raises OptionError."""
    train = recipe.train
    if train.grad_checkpointing:
        if not hasattr(model, "set_grad_checkpointing"):
            raise OptionError(f"train.grad_checkpointing: {recipe.model.name} does not support it, set it to false")
        model.set_grad_checkpointing(True)
    problems = unsupported(recipe, device=world.device.type, strategy=strategy)
    if problems:
        raise OptionError("\n".join(problems))
    if train.sync_batchnorm:
        from timm.layers import convert_sync_batchnorm

        model = convert_sync_batchnorm(model)  # torch's own drops the activation of timm's norms
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(train.deterministic)
    torch.backends.cudnn.benchmark = not train.deterministic
    model = model.to(world.device)
    if uses_channels_last(model, recipe):
        model = model.to(memory_format=torch.channels_last)
    if train.compile:
        model.compile()  # in place: parameter names stay clean
    return model


def connect(model: nn.Module, recipe: Recipe, world: World) -> nn.Module:
    """`model`, wrapped so that its gradients become the mean over all processes; itself if there is but one."""
    if world.world_size == 1:
        return model
    # Buffers are averaged when they are used; sending them each step would cost and hide that they drift. A static
    # graph would save nothing here, as every parameter has a gradient, and breaks accumulation (pytorch 143580).
    ddp = DistributedDataParallel(
        model,
        device_ids=None if world.device.type == "cpu" else [world.device],
        gradient_as_bucket_view=True,
        forward_sync_buffers=False,
    )
    if recipe.train.grad_compression is not None:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        # Hooks that keep nothing from step to step. PowerSGD keeps an error a process, and a run resumes on any number.
        hooks = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}
        ddp.register_comm_hook(None, hooks[recipe.train.grad_compression])
    return ddp
