"""Everything a run needs, put together once from its recipe: data, schedule, stream, model, engine, files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

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
from cifar_lab.runtime.make import make_engine
from cifar_lab.runtime.options import uses_channels_last
from cifar_lab.runtime.vote import Vote
from cifar_lab.runtime.world import World
from cifar_lab.tracking.tracker import Tracker
from cifar_lab.training.augmented import draw_augmented
from cifar_lab.training.presence import Presence
from cifar_lab.training.progress import Progress
from cifar_lab.training.records import begin_records
from cifar_lab.training.resume import find_checkpoint, starting_state
from cifar_lab.training.splits import Splits


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
    run_dir = presence.run_dir
    splits = Splits.load(recipe, cache_root(run_dir.path))
    schedule = Schedule.make(recipe, len(splits.training), world.world_size)
    found = find_checkpoint(run_dir, world)
    model = splits.network(recipe, world, resumed=found is not None)
    channels_last = uses_channels_last(model, recipe)
    engine = make_engine(world, recipe, model, schedule.accumulation_steps)
    state = starting_state(found, world, schedule, splits.training.fingerprint, engine)
    eval_stream = splits.measuring(recipe, world, channels_last)
    preparation = splits.preparation
    stream = preparation.training_stream(
        splits.training, recipe, schedule, device=world.device, channels_last=channels_last
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
        started=started,
        brought_seconds=state.seconds,
    )
