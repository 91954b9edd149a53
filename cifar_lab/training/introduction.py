"""What a run says and shows of itself before the first step."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import torch

from cifar_lab.data.index_log import IndexLog
from cifar_lab.data.stream import Stream
from cifar_lab.planning.remedy import fits
from cifar_lab.training.augmented import draw_augmented
from cifar_lab.training.headline import headline
from cifar_lab.training.session import Session

log = logging.getLogger("cifar_lab")


def introduce(session: Session) -> None:
    """Print the run's place, arithmetic and doubts, and draw what the model is fed first. Collective."""
    world, run_dir, engine = session.world, session.run_dir, session.engine
    stream, preparation = session.stream, session.preparation
    assert isinstance(stream, Stream)
    world.from_main(
        lambda: draw_augmented(
            run_dir.path / "augmented.png", stream, preparation.mean, preparation.std, session.test.classes
        )
    )
    if os.environ.get("CIFAR_LAB_INDEX_LOG"):
        session.stream = IndexLog(stream, Path(os.environ["CIFAR_LAB_INDEX_LOG"]) / f"{world.rank}.jsonl")
    if session.recipe.train.compile:
        session.heartbeat.phase("compile")  # the first step will be long
    if not world.is_main:
        return
    if world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
        warning = fits(session.recipe, world.world_size, memory, engine.strategy)
        if warning:
            log.warning(warning)
    session.progress.message(headline(run_dir.path, session.schedule, engine, session.state.step))
    if engine.config is not None:
        session.progress.message(f"DeepSpeed: {json.dumps(engine.config)}")
