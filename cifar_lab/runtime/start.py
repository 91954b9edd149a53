"""Joining the processes of this launch, under the strategy that the launcher asks for."""

import importlib.util
import logging
import os

import torch
import torch.distributed as dist
from accelerate.utils import DeepSpeedPlugin

from cifar_lab.errors import UsageError
from cifar_lab.files.shipped import config_file, install
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.nvidia import findings
from cifar_lab.runtime import launcher
from cifar_lab.runtime.world import World

log = logging.getLogger("cifar_lab")

# Accelerate's DeepSpeed path imports transformers.
OF_THE_EXTRA = ("deepspeed", "transformers")


def start_world(timeout: float | None = None, recipe: Recipe | None = None) -> World:
    """World.start, with DeepSpeed made ready if `accelerate launch` asks for it, on a GPU that can train `recipe`.

    Raises UsageError.
    """
    _check_devices()
    if launcher.uses_deepspeed(os.environ):
        _prepare_deepspeed()
    try:
        world = World.start(timeout)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UsageError(
            f"port {os.environ.get('MASTER_PORT')} of this machine is taken, perhaps by another launch: set another "
            "MASTER_PORT, or start with torchrun or accelerate launch --main_process_port 0, which find a free one"
        ) from error
    try:
        _check_gpu(world, recipe)
    except UsageError:
        world.close(abort=True)
        raise
    return world


def _check_gpu(world: World, recipe: Recipe | None) -> None:
    """Say before the first step what this process's NVIDIA GPU does slowly. Raises UsageError for what it cannot do."""
    if world.device.type != "cuda" or torch.version.cuda is None:
        return
    name, capability = torch.cuda.get_device_name(world.device), torch.cuda.get_device_capability(world.device)
    for finding in findings(name, capability, torch.cuda.get_arch_list(), torch.__version__, recipe):
        if finding.fatal:
            raise UsageError(str(finding))
        if world.is_main:
            log.warning("%s", finding)


def _check_devices() -> None:
    """Refuse more processes than devices: Accelerate would give several the same, on which NCCL fails."""
    devices, processes = torch.accelerator.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 0 < devices < processes and not launcher.on_cpu(os.environ):
        problem = (
            f"{processes} processes were started on this machine, which has {devices} "
            f"{torch.accelerator.current_accelerator()} device{'s' * (devices > 1)}: start as many (--nproc-per-node "
            f"{devices}, or --num_processes of accelerate launch), or set ACCELERATE_USE_CPU=true to train on CPUs"
        )
        if os.environ.get("LOCAL_RANK") == "0" and os.environ.get("RANK", "0") != "0":
            log.error(problem)  # rank 0, which speaks for all, may be on a machine that has enough
        raise UsageError(problem)


def _prepare_deepspeed() -> None:
    missing = [name for name in OF_THE_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the launch asks for DeepSpeed, but {' and '.join(missing)} cannot be found: "
            f"{install('deepspeed')}, or use {config_file('ddp')}, which does without"
        )
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it guessed
    from cifar_lab.runtime.zero import prepare_deepspeed

    prepare_deepspeed()
    try:
        DeepSpeedPlugin()  # reads what the launcher asks for, as the engine will
    except ValueError as error:
        raise UsageError(f"accelerate refuses the DeepSpeed configuration: {error}") from error
