"""The files that a start writes before its first step, and env.json: versions, host, revision, device, topology."""

import importlib.metadata
import logging
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import cifar_lab
from cifar_lab.checkpoint.saver import TrainingState
from cifar_lab.files import atomic
from cifar_lab.files.shipped import CHECKOUT
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.recipe.schema import SCHEMA_VERSION
from cifar_lab.runtime import device
from cifar_lab.runtime.engine import Engine
from cifar_lab.runtime.world import World
from cifar_lab.training.watchdog import Presence

log = logging.getLogger("cifar_lab")

PACKAGES = ("torch", "torchvision", "accelerate", "timm", "deepspeed", "datasets", "wandb", "numpy", "pydantic")


def begin_records(presence: Presence, world: World, schedule: Schedule, engine: Engine, state: TrainingState) -> None:
    """Bring the files of the run directory to the step that the run goes on from. Collective."""
    run_dir = presence.run_dir
    environment = _environment(world, schedule, state)

    def write() -> None:
        unreadable = run_dir.truncate_metrics(state.step)
        if unreadable:
            log.warning("%d unreadable lines were dropped from %s", unreadable, run_dir.path / "metrics.jsonl")
        run_dir.write_env(environment)
        if engine.config is not None:
            atomic.write_json(run_dir.path / "deepspeed.json", engine.config)
        number = presence.attempt.number
        run_dir.write_status("running", state.step, schedule.total_steps, world_size=world.world_size, attempt=number)

    world.from_main(write)


def _environment(world: World, schedule: Schedule, state: TrainingState) -> dict[str, Any]:
    """Contents of env.json. Collective: it lists the hosts of all processes."""
    hosts = world.gather_objects(socket.gethostname())
    return {
        "cifar_lab": cifar_lab.__version__,
        "schema_version": SCHEMA_VERSION,
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "command": sys.argv,
        "host": hosts[0],
        "hosts": sorted(set(hosts)),
        "platform": platform.platform(),
        "device": _cpu_name() if world.device.type == "cpu" else device.name(world.device),
        "tf32": torch.backends.cudnn.allow_tf32,  # in matrix products too; where the device has it
        "threads": torch.get_num_threads(),
        "strategy": state.strategy,
        "world_size": world.world_size,
        "global_batch": schedule.global_batch,
        "micro_batch": schedule.micro_batch,
        "micro_batches": state.micro_batches,
        "accumulation_steps": schedule.accumulation_steps,
        "save_every": min(schedule.save_every, schedule.steps_per_epoch),  # what requeues count as progress
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Git revision of the source, marked when it has uncommitted changes; None outside a checkout."""
    if CHECKOUT is None:  # a repository around the environment is not ours
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} cores)" if names else platform.machine()
