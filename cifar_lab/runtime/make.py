"""A model made ready on its device, and the engine for the strategy that the launcher set up."""

from __future__ import annotations

import os

import torch
from accelerate import DistributedType
from torch import nn

from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.support import unsupported
from cifar_lab.runtime.dropout import draw_flat
from cifar_lab.runtime.engine import Engine
from cifar_lab.runtime.plain import PlainEngine
from cifar_lab.runtime.world import World

PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU)


def make_engine(world: World, recipe: Recipe, model: nn.Module, accumulation_steps: int) -> Engine:
    """The engine that trains `model` as `recipe` says in `world`."""
    kind = world.accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        from cifar_lab.runtime.zero import ZeroEngine  # an extra: deepspeed need not be installed
        from cifar_lab.runtime.zero_config import ZeroSetup

        setup = ZeroSetup.from_accelerate(world.accelerator.state.deepspeed_plugin)
        model = apply_options(model, recipe, world, setup.strategy)
        return ZeroEngine(world, recipe, model, accumulation_steps, setup)
    if kind not in PLAIN:
        raise UsageError(
            f"the accelerate configuration asks for {kind.value}, which is not supported: "
            "use accelerate_configs/ddp.yaml or zero2.yaml, or torchrun"
        )
    strategy = "ddp" if world.world_size > 1 else "single"
    return PlainEngine(world, recipe, apply_options(model, recipe, world, strategy), accumulation_steps, strategy)


def uses_channels_last(model: nn.Module, recipe: Recipe) -> bool:
    """Whether pictures and weights are kept as NHWC."""
    return recipe.train.channels_last and is_convolutional(model)


def is_convolutional(model: nn.Module) -> bool:
    """Whether a net is one of convolutions; one that embeds patches has a single one."""
    return sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) > 1


def apply_options(model: nn.Module, recipe: Recipe, world: World, strategy: str) -> nn.Module:
    """`model` on the device of `world`, set up as the recipe's `train` section says. Raises UsageError."""
    train = recipe.train
    if train.grad_checkpointing:
        if not hasattr(model, "set_grad_checkpointing"):
            raise UsageError(f"train.grad_checkpointing: {recipe.model.name} does not support it, set it to false")
        model.set_grad_checkpointing(True)
    problems = unsupported(recipe, device=world.device.type, strategy=strategy)
    if problems:
        raise UsageError("\n".join(problems))
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
    if is_convolutional(model):
        draw_flat(model)
    if train.compile:
        from torch._inductor import config as inductor  # loads the compiler

        inductor.fallback_random = True  # its own generator would draw other dropout masks
        model.compile()  # in place: parameter names stay clean
    return model
