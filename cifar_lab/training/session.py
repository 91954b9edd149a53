"""Everything a run needs, put together once from its recipe: data, schedule, stream, model, engine, files."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from cifar_lab.checkpoint.saver import Saver, TrainingState
from cifar_lab.data.images import ImageSet, load_images
from cifar_lab.data.index_log import IndexLog
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.splits import limit_ids, split_ids
from cifar_lab.data.stream import EvalStream, Stream
from cifar_lab.files import atomic
from cifar_lab.models.factory import build_model
from cifar_lab.planning.warning import fits
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.rundir.attempt import Attempt
from cifar_lab.rundir.directory import RunDir, cache_root
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.engine import Engine
from cifar_lab.runtime.make import make_engine
from cifar_lab.runtime.options import uses_channels_last
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.vote import Vote
from cifar_lab.runtime.world import World
from cifar_lab.tracking.tracker import Tracker
from cifar_lab.training.augmented import draw_augmented
from cifar_lab.training.environment import environment
from cifar_lab.training.headline import headline
from cifar_lab.training.progress import Progress
from cifar_lab.training.resume import find_checkpoint, starting_state

log = logging.getLogger("cifar_lab")

# Training pictures that a model may look at before the first step (`initialise_from`).
INITIAL_PICTURES = 5000


@dataclass(frozen=True)
class Presence:
    """One process in one attempt at a run: its directory, the right to it, the sign of life, the wish to stop."""

    run_dir: RunDir
    attempt: Attempt
    heartbeat: Heartbeat
    flag: StopFlag


@dataclass
class Session:
    """One process's parts of a run; `state` is where training stands."""

    recipe: Recipe
    world: World
    presence: Presence
    schedule: Schedule
    preparation: Preparation
    test: ImageSet
    stream: Stream | IndexLog
    validation: EvalStream | None
    eval_stream: Callable[[ImageSet], EvalStream]  # what measures pictures, each on one of the processes
    engine: Engine
    saver: Saver
    tracker: Tracker
    progress: Progress
    vote: Vote
    state: TrainingState
    channels_last: bool
    started: float
    brought_seconds: float

    @property
    def run_dir(self) -> RunDir:
        """The run's directory."""
        return self.presence.run_dir

    @property
    def heartbeat(self) -> Heartbeat:
        """This process's sign of life; called alike by every rank, since progress is compared."""
        return self.presence.heartbeat

    def seconds(self) -> float:
        """Seconds that the run has taken, earlier attempts up to their last checkpoint included."""
        return self.brought_seconds + time.monotonic() - self.started

    def close(self) -> None:
        """Let go of threads, files and the screen, whatever happened before."""
        self.saver.close()
        self.tracker.finish()
        self.progress.close()


def open_session(recipe: Recipe, world: World, presence: Presence) -> Session:
    """Put a run together and load its newest checkpoint, if there is one. Collective; raises UserErrors."""
    started = time.monotonic()
    data, run_dir = recipe.data, presence.run_dir
    train, test, stats = load_images(
        data.name, data.args, root=data.root, max_gib=data.max_gib, cache_dir=cache_root(run_dir.path)
    )
    train_ids, val_ids = split_ids(train.labels, train.num_classes, data.val_size, data.limit)
    if data.test_limit is not None:
        test = test.subset(limit_ids(test.labels, test.num_classes, data.test_limit))
    schedule = Schedule.make(recipe, len(train_ids), world.world_size)
    preparation = Preparation.from_recipe(recipe, train, stats)
    image_size, mean, std = preparation.image_size, preparation.mean, preparation.std

    found = find_checkpoint(run_dir, world)

    def build() -> nn.Module:
        return build_model(recipe.model, train.num_classes, image_size, seed=recipe.seed, pretrained_ok=found is None)

    # Published weights are fetched by one process, and not at all where a checkpoint comes next.
    model = world.main_first(build) if recipe.model.pretrained and found is None else build()
    if found is None and hasattr(model, "initialise_from"):
        first = preparation.stream(train.subset(train_ids[:INITIAL_PICTURES]), batch=500, device=torch.device("cpu"))
        model.initialise_from(torch.cat([batch.images[batch.weight > 0] for batch in first]))
    channels_last = uses_channels_last(model, recipe)
    engine = make_engine(world, recipe, model, schedule.accumulation_steps)
    if world.is_main and world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
        warning = fits(recipe, world.world_size, memory, engine.strategy)
        if warning:
            log.warning(warning)
    training = train.subset(train_ids)
    state = starting_state(found, world, schedule, training.fingerprint, engine)
    pictures = preparation.training_stream(training, recipe, schedule, device=world.device, channels_last=channels_last)
    world.from_main(lambda: draw_augmented(run_dir.path / "augmented.png", pictures, mean, std, train.classes))
    stream: Stream | IndexLog = pictures
    if os.environ.get("CIFAR_LAB_INDEX_LOG"):
        stream = IndexLog(pictures, Path(os.environ["CIFAR_LAB_INDEX_LOG"]) / f"{world.rank}.jsonl")
    eval_stream = partial(
        preparation.stream,
        batch=recipe.eval.batch,
        device=world.device,
        rank=world.rank,
        world_size=world.world_size,
        channels_last=channels_last,
    )
    validation = eval_stream(train.subset(val_ids)) if len(val_ids) else None
    env = environment(world, schedule, engine.strategy)

    def prepare_files() -> None:
        unreadable = run_dir.truncate_metrics(state.step)
        if unreadable:
            log.warning("%d unreadable lines were dropped from %s", unreadable, run_dir.path / "metrics.jsonl")
        run_dir.write_env(env)
        if engine.config is not None:
            atomic.write_json(run_dir.path / "deepspeed.json", engine.config)
        number = presence.attempt.number
        run_dir.write_status("running", state.step, schedule.total_steps, world_size=world.world_size, attempt=number)

    world.from_main(prepare_files)
    progress = Progress(schedule.total_steps, state.step, enabled=world.is_main)
    tracker = Tracker(run_dir, recipe, world.is_main, message=progress.message)
    if world.is_main:
        progress.message(headline(run_dir.path, schedule, engine, state.step))
        if engine.config is not None:
            progress.message(f"DeepSpeed: {json.dumps(engine.config)}")
    if recipe.train.compile:
        presence.heartbeat.phase("compile")  # the first step will be long
    saver = Saver(run_dir.checkpoints, engine, recipe.checkpoint.keep_last, before_commit=presence.attempt.check)
    return Session(
        recipe=recipe,
        world=world,
        presence=presence,
        schedule=schedule,
        preparation=preparation,
        test=test,
        stream=stream,
        validation=validation,
        eval_stream=eval_stream,
        engine=engine,
        saver=saver,
        tracker=tracker,
        progress=progress,
        vote=Vote(world),
        state=state,
        channels_last=channels_last,
        started=started,
        brought_seconds=state.seconds,
    )
