"""One start of a run: claim its directory, watch over it, train, and say how it ended, whatever happens."""

import errno
import json
import logging
import os
import sys
import traceback
from pathlib import Path

import torch

from cifar_lab.data.index_log import IndexLog
from cifar_lab.data.sources import find_source
from cifar_lab.data.stream import Stream
from cifar_lab.errors import UsageError, UserError
from cifar_lab.files.late import LATE_SECONDS, appears
from cifar_lab.models.factory import find_family
from cifar_lab.planning.remedy import fits
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule, layout, mixes
from cifar_lab.rundir.attempt import Attempt, claim, read_attempt
from cifar_lab.rundir.directory import Outcome, RunDir, State
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.rundir.placement import Place, check_identity
from cifar_lab.runtime import host
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.world import World, is_lost_peer
from cifar_lab.training.finish import finish
from cifar_lab.training.loop import fit
from cifar_lab.training.session import Session
from cifar_lab.training.watchdog import Presence, Watchdog

# What the allocators of PyTorch, oneDNN and C++ say on CPUs, where no exception of their own is raised.
CPU_ALLOCATORS = ("allocate memory", "not enough memory", "could not create a memory", "bad_alloc")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class InterruptedRunError(UserError):
    """Another process or the link to it was lost; the run can be continued."""

    exit_status = 75


def start(world: World, recipe: Recipe, flag: StopFlag, place: Place) -> Outcome:
    """Train `recipe`, or continue its run, on all processes of `world`; of a completed run only says so."""
    if not world.is_main:
        logging.getLogger("cifar_lab").setLevel(logging.ERROR)  # rank 0 speaks for all
    run_dir = world.from_main(lambda: RunDir.locate(recipe, runs=place.runs, run_dir=place.run_dir, fresh=place.fresh))
    status = world.from_main(lambda: run_dir.status() if run_dir.path.is_dir() else None)
    if status is not None and status.state == "completed":
        if world.is_main:
            print(f"{run_dir.path} is completed already; --fresh starts a new run", file=sys.stderr)
        return Outcome(run_dir, completed=True)
    # Before a directory is made for what cannot be imported.
    world.everyone(lambda: (find_source(recipe.data.name), find_family(recipe.model.name)))
    attempt = world.from_main(lambda: _claim(run_dir, recipe))
    try:
        _check_shared(world, run_dir, attempt)
        # Every machine must have read the same recipe, and the same files that it names.
        world.everyone(lambda: check_identity(run_dir.path, recipe, named=False))
        with Heartbeat(run_dir.path, world.rank, attempt.number) as heartbeat:
            return _train(recipe, world, Presence(run_dir, attempt, heartbeat, flag, place.accept_micro_batch))
    finally:
        if world.is_main:
            attempt.release()


def _claim(run_dir: RunDir, recipe: Recipe) -> Attempt:
    """Take the directory over from whoever left it, or make it."""
    attempt = claim(run_dir.path)
    run_dir.create(recipe)
    return attempt


def _train(recipe: Recipe, world: World, presence: Presence) -> Outcome:
    session = None
    try:
        # It must be closed before an error is looked at: that may be the echo of a peer that hangs.
        with Watchdog(presence, world.world_size, recipe.train.hang_timeout):
            with host.loading():
                session = Session(recipe, world, presence)
                _introduce(session)
            completed = fit(session)
            session.progress.close()  # in a log its last line comes before the result, not after it
            completed = completed and finish(session)
        if not completed and world.is_main:
            session.progress.message(f"stopped at step {session.state.step}; start again to continue")
        return Outcome(presence.run_dir, completed)
    except BaseException as error:
        schedule = session.schedule if session else None
        explained, state = _explain(error, out_of_memory_advice(error, recipe, schedule), world)
        if world.is_main and presence.attempt.still_ours():
            reason = str(explained) or type(error).__name__
            try:
                presence.run_dir.write_end(state, reason, world.world_size, presence.attempt.number)
            except (OSError, ValueError) as problem:  # the error itself matters more
                print(f"cannot write {presence.run_dir.path / 'status.json'}: {problem}", file=sys.stderr)
        if explained is error:
            raise
        raise explained from error
    finally:
        if session is not None:
            session.close()


def _introduce(session: Session) -> None:
    """Print the run's place, arithmetic and doubts; log samples where somebody proves a resume."""
    world, engine = session.world, session.engine
    if os.environ.get("CIFAR_LAB_INDEX_LOG"):
        assert isinstance(session.stream, Stream)
        session.stream = IndexLog(session.stream, Path(os.environ["CIFAR_LAB_INDEX_LOG"]) / f"{world.rank}.jsonl")
    if session.recipe.train.compile:
        session.heartbeat.phase("compile")  # the first step will be long
    if not world.is_main:
        return
    splits = {"training": session.splits.train, "held-out": session.splits.val, "test": session.splits.test}
    told = ", ".join(f"{len(split or ()):,} {name}" for name, split in splits.items())
    session.progress.message(f"{session.run_dir.path}: {told} pictures")
    if world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
        if warning := fits(session.recipe, world.world_size, memory, engine.strategy):
            session.progress.message(warning)
    session.progress.message(_headline(session))
    if engine.config is not None:
        session.progress.message(f"DeepSpeed: {json.dumps(engine.config)}")


def _headline(session: Session) -> str:
    """Where the run lives, its batch arithmetic, its length, and the step that it goes on from."""
    schedule, step = session.schedule, session.state.step
    on = f" ({session.engine.strategy}, {session.world.device.type})"
    division = layout(schedule.world_size, schedule.accumulation_steps, schedule.micro_batch, on=on)
    return (
        f"{session.run_dir.path}: {division} = global batch {schedule.global_batch}; {schedule.steps_per_epoch} steps "
        f"per epoch, {schedule.total_steps} in total" + (f", from step {step}" if step else "")
    )


def _explain(error: BaseException, advice: str | None, world: World) -> tuple[BaseException, State]:
    """The error to raise for `error`, in words for the user where there are some, and the state that it means."""
    if advice:
        if not world.is_main:  # this process alone knows; errors that all share are told by rank 0
            print(f"process {world.rank}: {advice}", file=sys.stderr, flush=True)
        return UserError(advice), "failed"
    if is_lost_peer(error):
        return InterruptedRunError(f"another process was lost ({_first_line(error)}); start again"), "interrupted"
    if isinstance(error, OSError) and error.errno in FULL:
        where = error.filename or "the run directory"
        return UserError(
            f"cannot write {where}: {error.strerror}; free some space and start again to continue"
        ), "failed"
    return error, "failed"


def out_of_memory_advice(error: BaseException, recipe: Recipe, schedule: Schedule | None) -> str | None:
    """What to change when `error` is an allocation that failed; None when it is something else."""
    allocator = isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_ALLOCATORS)
    if not (allocator or isinstance(error, (torch.OutOfMemoryError, MemoryError))):
        return None
    first_line = _first_line(error)
    if schedule is None:
        return f"out of memory while the data and the model were loaded ({first_line})"
    if _in_evaluation(error) and recipe.eval.batch > 1:
        smaller = max(1, recipe.eval.batch // 2)
        return f"out of memory in an evaluation ({first_line}): set eval.batch={smaller} (it was {recipe.eval.batch})"
    unit = 2 if mixes(recipe.data.augment) else 1
    fitting = [b for b in range(unit, schedule.micro_batch, unit) if schedule.micro_batch % b == 0]
    advice = (
        f"set train.micro_batch={fitting[-1]} (it was {schedule.micro_batch}; the global batch does not change)"
        if fitting
        else "a single micro-batch does not fit: use more processes with ZeRO, or a smaller data.image_size"
    )
    return f"out of memory ({first_line}): {advice}, or train.grad_checkpointing=true"


def _in_evaluation(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "cifar_lab.training.evaluation" for frame, _ in frames)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_shared(world: World, run_dir: RunDir, attempt: Attempt) -> None:
    """Every process must see what rank 0 writes, which network file systems show late."""

    def read() -> None:
        folders = (*run_dir.path.parents[1::-1], run_dir.path)
        if not appears(lambda: read_attempt(run_dir.path) == attempt, *folders):
            raise UsageError(
                f"the run directory {run_dir.path} is not shared: process {world.rank} did not see what process 0 "
                f"wrote there within {LATE_SECONDS:.0f} s; name a folder on a shared file system with --runs DIR"
            )

    world.everyone(read)
