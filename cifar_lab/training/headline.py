"""The line with which a run begins."""

from __future__ import annotations

from pathlib import Path

from cifar_lab.recipe.schedule import Schedule
from cifar_lab.runtime.engine import Engine


def headline(folder: Path, schedule: Schedule, engine: Engine, step: int) -> str:
    """Where the run lives, its batch arithmetic, its length, and the step that it goes on from."""
    processes = f"{schedule.world_size} process" + ("es" if schedule.world_size > 1 else "")
    where = f", from step {step}" if step else ""
    return (
        f"{folder}: {processes} ({engine.strategy}, {engine.world.device.type}) x "
        f"{schedule.accumulation_steps} x micro-batch {schedule.micro_batch} = global batch {schedule.global_batch}; "
        f"{schedule.steps_per_epoch} steps an epoch, {schedule.total_steps} in all{where}"
    )
