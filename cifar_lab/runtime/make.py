"""Choosing the engine for the strategy that the launcher set up."""

from __future__ import annotations

from accelerate import DistributedType
from torch import nn

from cifar_lab.recipe import Recipe
from cifar_lab.runtime.engine import Engine
from cifar_lab.runtime.options import OptionError, apply_options
from cifar_lab.runtime.plain import PlainEngine
from cifar_lab.runtime.world import World

PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def make_engine(world: World, recipe: Recipe, model: nn.Module, accumulation_steps: int) -> Engine:
    """The engine that trains `model` as `recipe` says in `world`."""
    kind = world.accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return _zero_engine(world, recipe, model, accumulation_steps)
    if kind not in PLAIN:
        raise OptionError(
            f"the accelerate configuration asks for {kind.value}, which is not supported: "
            "use accelerate_configs/ddp.yaml or zero2.yaml, or torchrun"
        )
    strategy = "ddp" if world.world_size > 1 else "single"
    return PlainEngine(world, recipe, apply_options(model, recipe, world, strategy), accumulation_steps, strategy)


def _zero_engine(world: World, recipe: Recipe, model: nn.Module, accumulation_steps: int) -> Engine:
    from cifar_lab.runtime.zero import ZeroEngine  # an extra: deepspeed need not be installed
    from cifar_lab.runtime.zero_config import ZeroSetup

    setup = ZeroSetup.from_accelerate(world.accelerator.state.deepspeed_plugin)
    return ZeroEngine(world, recipe, apply_options(model, recipe, world, setup.strategy), accumulation_steps, setup)
