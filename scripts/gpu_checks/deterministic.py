"""Deterministic: a run that was stopped and resumed equals an undisturbed one bit for bit; what a save blocks."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_lab.rundir.directory import Outcome, RunDir
from cifar_lab.runtime import vote
from cifar_lab.train import run
from cifar_lab.verify.verdict import compare
from gpu_checks.check import Found, Place
from gpu_checks.runs import make_world, session, small, take_steps

STEPS = 120


def deterministic(place: Place, found: Found) -> None:
    """Two runs of the trainer's own `run`, in the order of losses, samples and tensors; and the blocking of a save."""
    mapping = recipe(STEPS, 20)
    train(mapping, place.folder, "undisturbed")
    vote.SECONDS_BETWEEN_VOTES = 0.0  # a stop is seen at the next step
    stopped = RunDir(place.folder / "killed")
    watcher = threading.Thread(target=_ask_for_stop, args=(stopped, STEPS // 4), daemon=True)
    watcher.start()
    first = train(mapping, place.folder, "killed")
    watcher.join(60)
    status = stopped.status()
    if found.holds("a run stops when it is asked to", not first.completed and status is not None):
        assert status is not None
        found.note("stopped at step", status.step)
        found.holds("it resumes and completes", train(mapping, place.folder, "killed").completed)
        judge(place.folder, found)
    _blocking(place, found)


def recipe(steps: int, save_every: int) -> dict[str, Any]:
    """A run with all that a checkpoint holds."""
    return small(
        data__augment__mixup_alpha=0.4,
        optim__lr=0.1,
        train={"steps": steps, "global_batch": 64, "micro_batch": 32, "grad_clip": 0.5, "ema_decay": 0.9}
        | {"deterministic": True},
        checkpoint__every_steps=save_every,
    )


def train(mapping: dict[str, Any], folder: Path, name: str) -> Outcome:
    """Train, or go on, in `folder`/`name`, with a log of the samples beside it."""
    os.environ["CIFAR_LAB_INDEX_LOG"] = str(folder / f"{name}.samples")
    try:
        return run(mapping, run_dir=str(folder / name))
    finally:
        del os.environ["CIFAR_LAB_INDEX_LOG"]


def judge(folder: Path, found: Found) -> None:
    """Compare the runs `undisturbed` and `killed`."""
    verdict = compare(folder, exact=True)
    found.note("tensors compared", verdict.tensors)
    found.at_most("largest difference", verdict.largest_difference, 0.0)
    found.problems += verdict.problems[:3]


def _ask_for_stop(run_dir: RunDir, step: int) -> None:
    metrics, deadline = run_dir.path / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= step:
            (run_dir.path / "STOP").touch()
            return
        time.sleep(0.001)


def _blocking(place: Place, found: Found) -> None:
    """Milliseconds that a second save keeps training from going on; the first one makes its buffers."""
    net = {"name": "resnet", "args": {"width": 16 if place.on_cpu else 64}}
    with session(small(model=net), place.folder / "saves", make_world(place.device)) as made:
        take_steps(made, range(1))
        for step in (1, 2):
            made.saver.wait()
            start = time.perf_counter()
            made.saver.save(replace(made.state, step=step))
            seconds = time.perf_counter() - start
        size = sum(plan.file_bytes for plan in made.saver.plans)
    found.note("a save blocks ms", 1000 * seconds)
    found.note("of MB", size / 1e6)
