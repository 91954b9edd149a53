"""Run directories as training leaves them, made without training, and what W&B must show of them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_lab.recipe import Recipe, parse_recipe
from cifar_lab.rundir.directory import RunDir, State
from cifar_lab.tracking.tracker import Tracker

VALIDATION_EVERY = 5


def recipe(project: str | None = "cifar-lab", to: tuple[str, ...] | None = None) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "seed": 3,
            "model": {"name": "resnet"},
            "optim": {"lr": 0.1},
            "train": {"epochs": 2, "global_batch": 32},
            "tracking": {"to": to, "wandb_project": project, "tags": ["test"]},
        }
    )


def made(path: Path, project: str | None = "cifar-lab", to: tuple[str, ...] | None = None) -> RunDir:
    """A run directory that has just been started."""
    run = RunDir(path)
    run.create(recipe(project, to))
    run.write_env({"command": ["train"], "revision": "abc", "world_size": 4, "strategy": "ddp", "hosts": ["here"]})
    run.write_status("running", 0, 100)
    return run


class Attempt:
    """One attempt at a run, from the step after `checkpoint` on; it validates at every fifth step."""

    def __init__(self, run: RunDir, checkpoint: int = 0) -> None:
        self.run, self.step = run, checkpoint
        self.messages: list[str] = []
        run.truncate_metrics(checkpoint)
        self.tracker = Tracker(run, run.recipe(), True, message=self.messages.append)
        validated = any(line["split"] == "val" and line["step"] == checkpoint for line in run.metrics())
        if checkpoint and checkpoint % VALIDATION_EVERY == 0 and not validated:
            self._validate()

    def train(self, last: int, *, owe_validation: bool = False) -> Attempt:
        for step in range(self.step + 1, last + 1):
            self.tracker.log("train", step, step / 10, loss=1 / step, lr=0.1)
            self.step = step
            if step % VALIDATION_EVERY == 0 and not (owe_validation and step == last):
                self._validate()
        return self

    def end(self, state: State = "stopped", timeout: float | None = 60) -> list[str]:
        """Stop, and wait for W&B; what the user was told."""
        self.run.write_status(state, self.step, 100)
        self.tracker.finish(timeout)
        return self.messages

    def wait_until(self, happened: Callable[[], bool], seconds: float = 60) -> None:
        """W&B sends what it has every 15 s."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, (self.run.path / "wandb.log").read_text()
            time.sleep(0.1)

    def connected(self) -> bool:
        """Whether W&B has opened the run on its server."""
        return "View run" in (self.run.path / "wandb.log").read_text()

    def kill_mirror(self) -> None:
        """As when the machine goes down."""
        process = self.tracker.mirrors["wandb"].process
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)

    def _validate(self) -> None:
        self.tracker.log("val", self.step, self.step / 10, loss=2.0, accuracy=self.step / 100)


def whole_history(last: int) -> dict[str, list[tuple[int, float]]]:
    """What W&B has to have of a run of so many steps, each value once and in order."""
    steps, validated = range(1, last + 1), range(VALIDATION_EVERY, last + 1, VALIDATION_EVERY)
    return {
        "train/loss": [(4 * step, 1 / step) for step in steps],
        "train/lr": [(4 * step, 0.1) for step in steps],
        "val/loss": [(4 * step + 1, 2.0) for step in validated],
        "val/accuracy": [(4 * step + 1, step / 100) for step in validated],
    }


def metrics_of(history: dict[str, Any]) -> dict[str, Any]:
    """Those of the run, without the axes."""
    return {key: values for key, values in history.items() if "/" in key}


def identifier(run: RunDir) -> str:
    return str(json.loads((run.path / "wandb.json").read_text())["id"])
