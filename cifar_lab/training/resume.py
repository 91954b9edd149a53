"""The state that a run starts from: its newest checkpoint, or step 0."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from cifar_lab.checkpoint import saver as checkpoint
from cifar_lab.checkpoint.files import CheckpointError
from cifar_lab.checkpoint.saver import TrainingState
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.rundir.directory import RunDir
from cifar_lab.runtime.engine import Engine
from cifar_lab.runtime.world import World

log = logging.getLogger("cifar_lab")


Found = tuple[Path, TrainingState]


def find_checkpoint(run_dir: RunDir, world: World) -> Found | None:
    """The newest checkpoint that verifies, None before the first. Collective."""
    return world.from_main(lambda: checkpoint.newest(run_dir.checkpoints))


def starting_state(
    found: Found | None, world: World, schedule: Schedule, fingerprint: str, engine: Engine
) -> TrainingState:
    """The state of the checkpoint `found`, put into `engine`, or step 0. Collective."""
    fresh = TrainingState(
        step=0,
        skipped=0,
        loss_sum=0.0,
        loss_steps=0,
        data_fingerprint=fingerprint,
        micro_batch=schedule.micro_batch,
        world_size=world.world_size,
        strategy=engine.strategy,
        seconds=0.0,
    )
    if found is None:
        return fresh
    path, state = found
    if state.data_fingerprint != fingerprint:
        raise CheckpointError(
            f"{path} was trained on other data than are found now: set data.root (or CIFAR_LAB_DATA) to the data of "
            "the first start, or begin anew with --fresh"
        )
    if state.micro_batch != schedule.micro_batch and engine.has_batch_norm and world.is_main:
        log.warning(
            "resuming at micro-batch %d what was trained at %d: batch norm will see other batches (train.micro_batch)",
            schedule.micro_batch,
            state.micro_batch,
        )
    checkpoint.load(path, engine, state)
    layout = {name: getattr(fresh, name) for name in ("micro_batch", "world_size", "strategy")}
    return replace(state, **layout)
