"""Joining the processes of this launch, under the strategy that the launcher asks for."""

from __future__ import annotations

import importlib.util
import logging
import os

import torch
import torch.distributed as dist
from accelerate.utils import DeepSpeedPlugin

from cifar_lab.errors import UsageError
from cifar_lab.runtime import launcher
from cifar_lab.runtime.world import World

log = logging.getLogger("cifar_lab")

# Accelerate's DeepSpeed path imports transformers.
OF_THE_EXTRA = ("deepspeed", "transformers")


def start_world(timeout: float | None = None) -> World:
    """World.start, with DeepSpeed made ready if `accelerate launch` asks for it. Raises UsageError."""
    _check_devices()
    if launcher.uses_deepspeed(os.environ):
        _prepare_deepspeed()
    try:
        return World.start(timeout)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UsageError(
            f"port {os.environ.get('MASTER_PORT')} of this machine is taken, perhaps by another launch: set another "
            "MASTER_PORT, or start with torchrun or accelerate launch --main_process_port 0, which find a free one"
        ) from error


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
            f"the launch asks for DeepSpeed, but {' and '.join(missing)} cannot be found: pip install "
            "'cifar-lab[deepspeed]', or use accelerate_configs/ddp.yaml, which does without"
        )
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it guessed
    from cifar_lab.runtime.zero import prepare_deepspeed

    prepare_deepspeed()
    try:
        DeepSpeedPlugin()  # reads what the launcher asks for, as the engine will
    except ValueError as error:
        raise UsageError(f"accelerate refuses the DeepSpeed configuration: {error}") from error
