"""Profiling the real loop on all processes of a launch: time some steps, then trace a few more."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.profiler import profile

from cifar_lab.cli.table import table
from cifar_lab.errors import UsageError
from cifar_lab.files import atomic
from cifar_lab.profiling.parts import PARTS, PREFIX, Parts, attach
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import layout
from cifar_lab.rundir.attempt import Attempt, claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime import device
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.world import World
from cifar_lab.training.loop import fit
from cifar_lab.training.session import Session
from cifar_lab.training.watchdog import Presence

WARM_UP, TRACED = 5, 3
OPERATORS = 8


class Enough(Exception):  # noqa: N818  # not an error: it leaves the loop between two steps
    """All steps that were asked for are done."""


def run_profile(recipe: Recipe, world: World, steps: int, out: Path) -> dict[str, Any]:
    """Train warm-up, `steps` timed and TRACED traced steps; what was found, also in `out`/profile.json. Collective."""
    # Nothing of a profile belongs on W&B.
    recipe = recipe.model_copy(update={"tracking": recipe.tracking.model_copy(update={"to": ()})})
    with _run_dir(recipe, world, out) as (run_dir, attempt):
        presence = Presence(run_dir, attempt, Heartbeat(run_dir.path, world.rank), StopFlag())  # never started
        session = Session(recipe, world, presence)
        try:
            return _profile(session, steps, out)
        finally:
            session.close()


@contextmanager
def _run_dir(recipe: Recipe, world: World, out: Path) -> Iterator[tuple[RunDir, Attempt]]:
    """A run directory that goes away; in `out`, which several nodes share."""

    made = [folder for folder in (out, *out.parents) if not folder.exists()]

    def make() -> tuple[str, Attempt]:
        try:
            out.mkdir(parents=True, exist_ok=True)
            path = tempfile.mkdtemp(prefix=".run-", dir=out)
        except OSError as error:
            raise UsageError(f"cannot write {out}: {error.strerror}; name another folder with --out") from error
        RunDir(path).create(recipe)
        return path, claim(Path(path))

    path, attempt = world.from_main(make)
    try:
        yield RunDir(path), attempt
    finally:
        if world.is_main:
            attempt.release()
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):  # what a profile that ended well has filled
                for folder in made:
                    folder.rmdir()


def _profile(session: Session, steps: int, out: Path) -> dict[str, Any]:
    total, world = session.schedule.total_steps, session.world
    longest = total - WARM_UP - TRACED
    if steps > longest:
        fix = f"at most --steps {longest}, or a larger train.epochs" if longest > 0 else "use a larger train.epochs"
        raise UsageError(
            f"the recipe trains {total} steps, fewer than {steps} timed, {WARM_UP} before them and {TRACED} traced: "
            f"{fix}"
        )
    session.validation = None  # what is asked for is the step
    parts, profiler = Parts(world.device), profile(acc_events=True)
    timed: list[dict[str, float]] = []

    def at_step(step: int) -> None:
        done = parts.next_step()
        if WARM_UP < step <= WARM_UP + steps:
            timed.append(done)
        if step == WARM_UP + steps:
            parts.waits = False
            profiler.start()
        elif step == WARM_UP + steps + TRACED:
            raise Enough

    attach(session, parts, at_step)
    session.progress.close()  # its percent and its time left are those of the recipe, which ends here long before
    session.progress.message(f"{WARM_UP} steps to warm up, {steps} that are timed, {TRACED} that are traced")
    with suppress(Enough):
        fit(session)
    profiler.stop()
    names = ["trace.json"] if world.world_size == 1 else [f"trace.{rank}.json" for rank in range(world.world_size)]
    world.everyone(lambda: profiler.export_chrome_trace(os.fspath(out / names[world.rank])))
    found = {
        **_described(session),
        "steps": steps,
        **_times(world.gather_objects(timed), session.schedule.global_batch),
        "operators": _operators(profiler, world.device.type),
        "traces": [os.fspath(out / name) for name in names],
    }
    world.from_main(lambda: atomic.write_json(out / "profile.json", found))
    return found


def _described(session: Session) -> dict[str, Any]:
    """What was profiled."""
    world, schedule, model = session.world, session.schedule, session.recipe.model
    return {
        "recipe": session.recipe.name,
        "model": " ".join([model.name, *(f"{k}={v}" for k, v in model.args.items())]),
        "strategy": session.engine.strategy,
        "world_size": world.world_size,
        "device": device.name(world.device),
        "threads": torch.get_num_threads(),
        "global_batch": schedule.global_batch,
        "micro_batch": schedule.micro_batch,
        "accumulation_steps": schedule.accumulation_steps,
    }


def _times(processes: Sequence[Sequence[Mapping[str, float]]], global_batch: int) -> dict[str, Any]:
    """The mean step over all processes by part, and what each process spends in it."""
    each = {part: [fmean(step[part] for step in steps) for steps in processes] for part in PARTS}
    whole = sum(fmean(seconds) for seconds in each.values())
    return {
        "step_ms": 1000 * whole,
        "images_per_second": global_batch / whole,
        "parts": [
            {
                "part": part,
                "ms": 1000 * fmean(seconds),
                "percent": 100 * fmean(seconds) / whole,
                "processes_ms": [1000 * value for value in seconds],
            }
            for part, seconds in each.items()
        ],
    }


def _operators(profiler: Any, kind: str) -> list[dict[str, Any]]:
    """The operators that take most time by themselves, of this process: on the GPU where its times are known."""
    key = "self_device_time_total" if kind in ("cuda", "xpu") else "self_cpu_time_total"
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


def render(found: Mapping[str, Any]) -> str:
    """The text of what was found; where there are several processes, with each part's least and most of them."""
    on = f" ({found['strategy']}, {found['device']})"
    division = layout(found["world_size"], found["accumulation_steps"], found["micro_batch"], on=on)
    numbers = ["ms", "%", "least", "most"] if found["world_size"] > 1 else ["ms", "%"]
    parts = [
        [row["part"], row["ms"], row["percent"], min(row["processes_ms"]), max(row["processes_ms"])]
        for row in found["parts"]
    ]
    parts.append(["step", found["step_ms"], 100.0, found["step_ms"], found["step_ms"]])
    cells = [[name, *(f"{value:.2f}" for value in values[: len(numbers)])] for name, *values in parts]
    operators = [
        [row["name"], *(f"{row[key]:.2f}" for key in ("calls", "ms", "percent"))] for row in found["operators"]
    ]
    return "\n\n".join(
        [
            f"{found['recipe']}: {found['model']}; {division}; {found['steps']} steps measured, "
            f"{found['images_per_second']:,.0f} images/s",
            table(cells, ["part", *numbers], numbers=numbers),
            table(operators, ["operator", "calls per step", "ms", "%"], numbers=("calls per step", "ms", "%")),
            "\n".join(f"trace: {path}" for path in found["traces"]),
        ]
    )
