"""Profiling the real loop on all processes of a launch: time some steps, then trace a few more."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from cifar_lab.errors import UserError
from cifar_lab.files import atomic
from cifar_lab.profiling.breakdown import Breakdown, advise, break_down, over_processes
from cifar_lab.profiling.marks import PREFIX, Enough, Marks, attached
from cifar_lab.recipe import Recipe
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.world import World
from cifar_lab.training.loop import fit
from cifar_lab.training.memory import out_of_memory_advice
from cifar_lab.training.presence import Presence
from cifar_lab.training.session import Session, open_session

WARM_UP, TRACED = 5, 3
OPERATORS = 8


class ProfileError(UserError):
    """The recipe is too short for so many steps, or the folder cannot be written."""

    exit_status = 2


def run_profile(recipe: Recipe, world: World, steps: int, out: Path) -> dict[str, Any]:
    """Train warm-up, `steps` timed and TRACED traced steps; what was found, also in `out`/profile.json. Collective."""
    # Nothing of a profile belongs on W&B.
    recipe = recipe.model_copy(update={"tracking": recipe.tracking.model_copy(update={"wandb_project": None})})
    session = None
    with _run_dir(world, out) as run_dir:
        attempt = world.from_main(lambda: _claim(run_dir, recipe))
        try:
            presence = Presence(run_dir, attempt, Heartbeat(run_dir.path, world.rank), StopFlag())  # never started
            session = open_session(recipe, world, presence)
            return _profile(session, steps, out)
        except Exception as error:
            advice = out_of_memory_advice(error, recipe, session.schedule if session else None)
            if advice:
                raise UserError(advice) from error
            raise
        finally:
            if session is not None:
                session.close()
            if world.is_main:
                attempt.release()


def _claim(run_dir: RunDir, recipe: Recipe) -> Any:
    run_dir.create(recipe)
    return claim(run_dir.path)


@contextmanager
def _run_dir(world: World, out: Path) -> Iterator[RunDir]:
    """A run directory that goes away; in `out`, which several nodes share."""

    made: list[Path] = []

    def make() -> str:
        made.extend(folder for folder in (out, *out.parents) if not folder.exists())
        try:
            out.mkdir(parents=True, exist_ok=True)
            return tempfile.mkdtemp(prefix=".run-", dir=out)
        except OSError as error:
            raise ProfileError(f"cannot write {out}: {error.strerror}; name another folder with --out") from error

    path = world.from_main(make)
    try:
        yield RunDir(path)
    finally:
        if world.is_main:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):  # what has a profile in it stays
                for folder in made:
                    folder.rmdir()


def _profile(session: Session, steps: int, out: Path) -> dict[str, Any]:
    schedule, world = session.schedule, session.world
    longest = schedule.total_steps - WARM_UP - TRACED
    if steps > longest:
        fix = f"at most --steps {longest}, or a larger train.epochs" if longest > 0 else "use a larger train.epochs"
        raise ProfileError(
            f"the recipe trains {schedule.total_steps} steps, fewer than {steps} timed, {WARM_UP} before them and "
            f"{TRACED} traced: {fix}"
        )
    session.validation = None  # what is asked for is the step
    first_traced = WARM_UP + steps
    marks = Marks(world.device, WARM_UP, first_traced)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if world.device.type == "cuda" else [])]
    profiler = profile(activities=activities, acc_events=True)
    tracing = False

    def at_step(step: int) -> None:
        nonlocal tracing
        if step == first_traced:
            profiler.start()
            tracing = True
        elif step == first_traced + TRACED:
            raise Enough

    try:
        with attached(session, marks, at_step):
            fit(session)
    except Enough:
        pass
    finally:
        if tracing:
            if world.device.type == "cuda":
                torch.cuda.synchronize(world.device)
            profiler.stop()
    name = "trace.json" if world.world_size == 1 else f"trace.{world.rank}.json"
    world.everyone(lambda: _export(profiler, out / name))
    each = break_down(world.gather_objects(marks.steps))
    found = _found(session, steps, each, _operators(profiler, world.device), out)
    world.from_main(lambda: atomic.write_json(out / "profile.json", found))
    return found


def _export(profiler: Any, path: Path) -> None:
    try:
        with atomic.replacing(path) as temporary:
            profiler.export_chrome_trace(str(temporary))
    except OSError as error:
        raise ProfileError(f"cannot write {path}: {error.strerror}; name another folder with --out") from error


def _found(
    session: Session, steps: int, each: list[Breakdown], operators: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Plain values: what was profiled, the mean step of all processes and of each, operators of process 0."""
    world, schedule, mean = session.world, session.schedule, over_processes(each)
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else world.device.type
    names = ["trace.json"] if world.world_size == 1 else [f"trace.{rank}.json" for rank in range(world.world_size)]
    return {
        "recipe": session.recipe.name,
        "model": " ".join([session.recipe.model.name, *(f"{k}={v}" for k, v in session.recipe.model.args.items())]),
        "strategy": session.engine.strategy,
        "world_size": world.world_size,
        "device": device,
        "threads": torch.get_num_threads(),
        "global_batch": schedule.global_batch,
        "micro_batch": schedule.micro_batch,
        "accumulation_steps": schedule.accumulation_steps,
        "steps": steps,
        "step_ms": 1000 * mean.wall,
        "images_per_second": schedule.global_batch / mean.wall,
        "parts": _rows(mean),
        "processes": [{"rank": rank, "step_ms": 1000 * one.wall, "parts": _rows(one)} for rank, one in enumerate(each)],
        "operators": operators,
        "advice": advise(mean),
        "traces": [os.fspath(out / name) for name in names],
    }


def _rows(step: Breakdown) -> list[dict[str, Any]]:
    return [
        {"part": part, "ms": 1000 * seconds, "percent": 100 * step.share(part)} for part, seconds in step.parts.items()
    ]


def _operators(profiler: Any, device: torch.device) -> list[dict[str, Any]]:
    """The operators that take most time by themselves, of this process: on the GPU where there is one."""
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = [event for event in profiler.key_averages() if not event.key.startswith(PREFIX)]
    total = sum(getattr(event, key) for event in events) or 1.0
    events.sort(key=lambda event: -getattr(event, key))
    return [
        {
            "name": event.key,
            "calls": event.count / TRACED,
            "ms": getattr(event, key) / 1000 / TRACED,
            "percent": 100 * getattr(event, key) / total,
        }
        for event in events[:OPERATORS]
    ]
