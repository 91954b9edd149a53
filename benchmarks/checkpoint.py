"""What saving costs: the background saver against a synchronous torch.save + fsync of the same state.

    python benchmarks/checkpoint.py [--rounds 3]

Trains a ViT-Base (86 M parameters, AdamW: about 1 GB of state) for 40 timed steps with 4 saves, without saves, and with
4 synchronous saves, in turn, in one process. Prints medians as JSON on the last line: `extra_ratio` is the extra wall
time of our saves over that of the synchronous ones (target 0.6), `blocked_ratio` the time that the loop stood still in
ours over the same (target 0.35). The first save, which allocates the buffers, is not timed.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cifar_lab.runtime import host

host.settle()  # as `cifar-lab train` does, before torch is loaded

import torch

from cifar_lab.recipe import parse_recipe
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.world import World
from cifar_lab.training.loop import fit
from cifar_lab.training.session import Session
from cifar_lab.training.watchdog import Presence

FIRST, LAST, EVERY, TOTAL = 15, 55, 10, 56  # saves at 20, 30, 40 and 50 are inside of the timed steps
KINDS = ("weights", "buffers", "optimizer")


def recipe(saves: bool) -> dict[str, Any]:
    return {
        "name": "checkpoint-benchmark",
        "data": {"name": "shapes", "args": {"num_train": 4000, "num_test": 10}, "val_size": 0},
        "model": {"name": "timm_zoo", "args": {"arch": "vit_base_patch16_224", "patch_size": 16}},
        "optim": {"name": "adamw", "lr": 1e-4},
        "train": {"steps": TOTAL, "global_batch": 8},
        "checkpoint": {"every_steps": EVERY if saves else 10 * TOTAL},
        "log": {"every_steps": 1000},
    }


class Timer:
    """Times the steps FIRST to LAST of a session and what its saves block."""

    def __init__(self, session: Session) -> None:
        self.times: dict[int, float] = {}
        self.blocked = 0.0
        update, save = session.progress.update, session.saver.save

        def timed_update(step: int, **values: float) -> None:
            self.times[step] = time.perf_counter()
            update(step, **values)

        def timed_save(state: Any) -> None:
            start = time.perf_counter()
            save(state)
            if FIRST <= state.step < LAST:
                self.blocked += time.perf_counter() - start

        session.progress.update = timed_update  # type: ignore[method-assign]
        session.saver.save = timed_save  # type: ignore[method-assign]

    @property
    def seconds(self) -> float:
        return self.times[LAST] - self.times[FIRST]


def run(world: World, folder: Path, mode: str) -> Timer:
    """Train once: mode `none`, `ours` or `torch_save`."""
    parsed, run_dir = parse_recipe(recipe(mode != "none")), RunDir(folder / mode)
    run_dir.create(parsed)
    presence = Presence(run_dir, claim(run_dir.path), Heartbeat(run_dir.path, 0), StopFlag())
    session = Session(parsed, world, presence)
    if mode == "torch_save":
        session.saver.save = lambda state: torch_save(session, run_dir.path / f"{state.step}.pt")  # type: ignore
    timer = Timer(session)
    fit(session)
    session.saver.wait()
    session.close()
    shutil.rmtree(run_dir.path)
    return timer


def torch_save(session: Session, path: Path) -> None:
    """The same tensors, written and synced while the loop waits."""
    with open(path, "wb") as file:
        torch.save({kind: dict(session.engine.named_state(kind)) for kind in KINDS}, file)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", help="where checkpoints are written (default: the system's temporary folder)")
    options = parser.parse_args()
    world = World.start()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        for round_number in range(options.rounds):
            timers = {mode: run(world, Path(folder), mode) for mode in ("none", "ours", "torch_save")}
            base = timers["none"].seconds
            row = {mode: timer.seconds - base for mode, timer in timers.items() if mode != "none"}
            row |= {"none": base, "blocked": timers["ours"].blocked, "synchronous": timers["torch_save"].blocked}
            rows.append(row)
            print(f"round {round_number + 1}: " + ", ".join(f"{key} {value:.2f} s" for key, value in row.items()))
    median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    result = {
        "extra_ratio": statistics.median(row["ours"] / row["synchronous"] for row in rows),
        "blocked_ratio": statistics.median(row["blocked"] / row["synchronous"] for row in rows),
        "seconds": median,
        "rounds": options.rounds,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
