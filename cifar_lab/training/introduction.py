"""What a run says of itself before the first step."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import torch

from cifar_lab.data.index_log import IndexLog
from cifar_lab.data.stream import Stream
from cifar_lab.planning.remedy import fits
from cifar_lab.training.session import Session

log = logging.getLogger("cifar_lab")


def introduce(session: Session) -> None:
    """Print the run's place, arithmetic and doubts; log samples where somebody proves a resume."""
    world, engine = session.world, session.engine
    if os.environ.get("CIFAR_LAB_INDEX_LOG"):
        assert isinstance(session.stream, Stream)
        session.stream = IndexLog(session.stream, Path(os.environ["CIFAR_LAB_INDEX_LOG"]) / f"{world.rank}.jsonl")
    if session.recipe.train.compile:
        session.heartbeat.phase("compile")  # the first step will be long
    if not world.is_main:
        return
    if world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
        warning = fits(session.recipe, world.world_size, memory, engine.strategy)
        if warning:
            log.warning(warning)
    session.progress.message(_headline(session))
    if engine.config is not None:
        session.progress.message(f"DeepSpeed: {json.dumps(engine.config)}")


def _headline(session: Session) -> str:
    """Where the run lives, its batch arithmetic, its length, and the step that it goes on from."""
    schedule, step = session.schedule, session.state.step
    processes = f"{schedule.world_size} process" + ("es" if schedule.world_size > 1 else "")
    where = f", from step {step}" if step else ""
    return (
        f"{session.run_dir.path}: {processes} ({session.engine.strategy}, {session.world.device.type}) x "
        f"{schedule.accumulation_steps} x micro-batch {schedule.micro_batch} = global batch {schedule.global_batch}; "
        f"{schedule.steps_per_epoch} steps an epoch, {schedule.total_steps} in all{where}"
    )
