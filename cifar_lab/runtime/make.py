"""A model made ready on its device, and the engine for the strategy that the launcher set up."""

import logging
import os

import torch
from accelerate import Accelerator, DDPCommunicationHookType, DeepSpeedPlugin, DistributedType, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin
from torch import nn

from cifar_lab.errors import UsageError
from cifar_lab.files.shipped import config_file
from cifar_lab.models.blocks import find_blocks
from cifar_lab.models.tf32 import has_tf32, set_tf32
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.support import unsupported
from cifar_lab.runtime.dropout import draw_flat
from cifar_lab.runtime.engine import Engine
from cifar_lab.runtime.launcher import uses_fsdp
from cifar_lab.runtime.plain import PlainEngine
from cifar_lab.runtime.world import World

log = logging.getLogger("cifar_lab")

PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU)


def make_engine(world: World, recipe: Recipe, model: nn.Module, accumulation_steps: int) -> Engine:
    """The engine that trains `model` as `recipe` says in `world`."""
    if PartialState().distributed_type == DistributedType.DEEPSPEED:
        from cifar_lab.runtime.zero import ZeroEngine  # an extra: deepspeed need not be installed
        from cifar_lab.runtime.zero_config import ZeroSetup, deepspeed_config

        plugin = DeepSpeedPlugin()  # of the launcher
        setup = ZeroSetup.from_accelerate(plugin)
        model = apply_options(model, recipe, world, setup.strategy, accumulation_steps)
        plugin.deepspeed_config = plugin.hf_ds_config.config = deepspeed_config(
            recipe,
            setup,
            world_size=world.world_size,
            accumulation_steps=accumulation_steps,
            num_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        )
        accelerator = make_accelerator(recipe, accumulation_steps, plugin)
        return ZeroEngine(world, accelerator, recipe, model, setup)
    accelerator = make_accelerator(recipe, accumulation_steps)
    if uses_fsdp(os.environ) and world.world_size > 1:
        from cifar_lab.runtime.fsdp import FsdpEngine

        return FsdpEngine(world, accelerator, recipe, apply_options(model, recipe, world, "fsdp2", accumulation_steps))
    if accelerator.distributed_type not in PLAIN:
        raise UsageError(
            f"the accelerate configuration asks for {accelerator.distributed_type.value}, which is not supported: "
            f"use {config_file('ddp')} or zero2.yaml, or torchrun"
        )
    strategy = "ddp" if world.world_size > 1 else "single"
    model = apply_options(model, recipe, world, strategy, accumulation_steps)
    return PlainEngine(world, accelerator, recipe, model, strategy)


def make_accelerator(recipe: Recipe, accumulation_steps: int, plugin: DeepSpeedPlugin | None = None) -> Accelerator:
    """Accelerate, told what the recipe says, in the processes of `World.start`; `plugin`: if DeepSpeed trains."""
    AcceleratorState._reset_state()  # one process may train several recipes
    # Buffers are averaged when they are used; sending them each step would cost and hide that they drift. A static
    # graph would save nothing here, as every parameter has a gradient, and breaks accumulation (pytorch 143580). Hooks
    # are those that keep nothing from step to step: PowerSGD keeps an error a process, a run resumes on any number.
    ddp = DistributedDataParallelKwargs(
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
        comm_hook=DDPCommunicationHookType(recipe.train.grad_compression or "no"),
    )
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(recipe.train.precision, recipe.train.precision),
        device_placement=False,  # it numbers CPUs, and moving a module to "cpu:0" replaces its buffers by copies
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulation_steps),
        deepspeed_plugin=plugin,
        kwargs_handlers=[ddp],
    )
    accelerator.native_amp = recipe.train.precision != "fp32"  # fp16 too: on CPUs it would be fp32, without a word
    return accelerator


def uses_channels_last(model: nn.Module, recipe: Recipe) -> bool:
    """Whether pictures and weights are kept as NHWC."""
    return recipe.train.channels_last and is_convolutional(model)


def is_convolutional(model: nn.Module) -> bool:
    """Whether a net is one of convolutions; one that embeds patches has a single one."""
    return sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) > 1


def apply_options(
    model: nn.Module, recipe: Recipe, world: World, strategy: str, accumulation_steps: int = 1
) -> nn.Module:
    """`model` on the device of `world`, set up as the recipe's `train` section says. Raises UsageError."""
    train = recipe.train
    if train.grad_checkpointing:
        if not hasattr(model, "set_grad_checkpointing"):
            raise UsageError(f"train.grad_checkpointing: {recipe.model.name} does not support it, set it to false")
        model.set_grad_checkpointing(True)
    device = world.device.type
    problems = unsupported(recipe, device=device, strategy=strategy, accumulation_steps=accumulation_steps)
    if problems:
        raise UsageError("\n".join(problems))
    if train.sync_batchnorm:
        try:
            from timm.layers import convert_sync_batchnorm as convert  # torch's drops the activation of timm's norms
        except ModuleNotFoundError:  # then no net has such norms
            convert = nn.SyncBatchNorm.convert_sync_batchnorm
        model = convert(model)
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(train.deterministic)
    torch.backends.cudnn.benchmark = not train.deterministic
    set_tf32(train.tf32)
    if train.tf32 and not has_tf32(world.device):
        log.warning("train.tf32 does nothing here, since this device (%s) has no TF32", device)
    if strategy != "fsdp2":  # which takes it there part by part
        model = model.to(world.device)
    if uses_channels_last(model, recipe):
        model = model.to(memory_format=torch.channels_last)
    if is_convolutional(model):
        draw_flat(model)
    if train.compile:
        from torch._inductor import config as inductor  # loads the compiler

        inductor.fallback_random = True  # its own generator would draw other dropout masks
        mode = None if train.compile is True else train.compile
        # The gathering of FSDP2 breaks the graph around each block.
        for part in (strategy == "fsdp2" and find_blocks(model)) or [model]:
            part.compile(mode=mode)  # in place: parameter names stay clean
    return model
