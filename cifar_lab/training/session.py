"""Everything a run needs, put together once from its recipe: data, schedule, stream, model, engine, files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cifar_lab.checkpoint import saver as checkpoint
from cifar_lab.checkpoint.files import CheckpointError
from cifar_lab.checkpoint.saver import Saver, TrainingState
from cifar_lab.data.images import ImageSet
from cifar_lab.data.index_log import IndexLog
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import EvalStream, Stream
from cifar_lab.files.cache import cache_root
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.engine import Engine
from cifar_lab.runtime.make import make_engine, uses_channels_last
from cifar_lab.runtime.vote import Vote
from cifar_lab.runtime.world import World
from cifar_lab.tracking.tracker import Tracker
from cifar_lab.training.presence import Presence
from cifar_lab.training.progress import Progress
from cifar_lab.training.records import begin_records
from cifar_lab.training.sheets import draw_augmented
from cifar_lab.training.splits import Splits

log = logging.getLogger("cifar_lab")


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
    started: float  # by the monotonic clock, as if earlier attempts had been this one

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
        return time.monotonic() - self.started

    def close(self) -> None:
        """Let go of threads, files and the screen, whatever happened before."""
        self.saver.close()
        self.tracker.finish()
        self.progress.close()


def open_session(recipe: Recipe, world: World, presence: Presence) -> Session:
    """Put a run together and load its newest checkpoint, if there is one. Collective; raises UserErrors."""
    started = time.monotonic()
    run_dir = presence.run_dir
    splits = Splits.load(recipe, cache_root(run_dir.path))
    schedule = Schedule.make(recipe, len(splits.training), world.world_size)
    found = world.from_main(lambda: checkpoint.newest(run_dir.checkpoints))
    model = splits.network(recipe, world, resumed=found is not None)
    channels_last = uses_channels_last(model, recipe)
    engine = make_engine(world, recipe, model, schedule.accumulation_steps)
    state = _starting_state(found, world, schedule, splits.training.fingerprint, engine)
    eval_stream = splits.measuring(recipe, world, channels_last)
    preparation = splits.preparation
    stream = Stream(
        splits.training,
        preparation,
        recipe.data.augment,
        seed=recipe.seed,
        global_batch=schedule.global_batch,
        micro_batch=schedule.micro_batch,
        device=world.device,
        channels_last=channels_last,
    )
    # Before the tracker, which follows these files and sends the sheet.
    begin_records(presence, world, schedule, engine, state)
    sheet = run_dir.path / "augmented.png"
    world.from_main(lambda: draw_augmented(sheet, stream, preparation.mean, preparation.std, splits.test.classes))
    progress = Progress(schedule.total_steps, state.step, enabled=world.is_main)
    return Session(
        recipe=recipe,
        world=world,
        presence=presence,
        schedule=schedule,
        preparation=preparation,
        test=splits.test,
        stream=stream,
        validation=eval_stream(splits.held_out) if len(splits.held_out) else None,
        eval_stream=eval_stream,
        engine=engine,
        saver=Saver(run_dir.checkpoints, engine, recipe.checkpoint.keep_last, before_commit=presence.attempt.check),
        tracker=Tracker(run_dir, recipe, world.is_main, message=progress.message),
        progress=progress,
        vote=Vote(world),
        state=state,
        channels_last=channels_last,
        started=started - state.seconds,
    )


def _starting_state(
    found: tuple[Path, TrainingState] | None, world: World, schedule: Schedule, fingerprint: str, engine: Engine
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
