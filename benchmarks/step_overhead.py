"""What our training loop costs a step: its pictures per second over those of a bare PyTorch loop.

    python benchmarks/step_overhead.py [--rounds 11] [--net small]

Ours is the real `fit` of a real run: guard, heartbeat and watchdog, progress, metrics every 50 steps, and in every
block one checkpoint, saved in the background and waited for within the block (a recipe saves once an epoch, which is
longer). Bare is `benchmarks/bare.py`: fused SGD, `zero_grad(set_to_none=True)`, `loss.item()` every 50 steps. Both have
the same net, batch, memory format and threads, and get the same pictures from a `Stream` of their own, so what is
measured is the loop and not the data. They take turns in one process, a slice of a block each: ours, bare, bare; so
what else the machine does meets all three. The first step of a slice is not timed: the caches hold another net. The
ratio compares a block of ours with the two bare ones of the same slices, A/A these two with each other. The spread is
the interquartile range of A/A; above 2 % the verdict is "too noisy". Prints JSON on its last line.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cifar_lab.runtime import host

host.settle()  # as `cifar-lab train` does, before torch is loaded

import bare
import torch
from torch import Tensor

from cifar_lab.data.images import load_images
from cifar_lab.data.stream import Stream
from cifar_lab.recipe import Recipe, parse_recipe
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.world import World
from cifar_lab.training.loop import fit
from cifar_lab.training.session import Session
from cifar_lab.training.watchdog import Presence, Watchdog

SPREAD = 0.02
SLICES = 5  # of a block
WARM_UP = 1  # steps of a slice
# The small net's step is to take 2 ms: --batch moves it there on other machines, the result says what it took.
NETS: dict[str, dict[str, Any]] = {
    "resnet18": {"model": {"name": "resnet"}, "batch": 64, "steps": 60, "target": 0.98},
    "small": {
        "model": {"name": "speednet", "args": {"width": 8, "stem_stride": 2}},
        "batch": 8,
        "steps": 3000,  # half an epoch of CIFAR-10; a recipe saves once an epoch
        "target": 0.90,
    },
}


def recipe(net: dict[str, Any], rounds: int) -> Recipe:
    """A block is an epoch; there are two more than rounds: one warms up, and slices begin in the middle of one."""
    steps, batch = net["steps"], net["batch"]
    return parse_recipe(
        {
            "name": "step-overhead",
            "data": {
                "name": "shapes",
                "args": {"num_train": steps * batch, "num_test": 10, "image_size": 32},
                "val_size": 0,
                "augment": {"crop_padding": 4, "flip": True},
            },
            "model": net["model"],
            "optim": {"name": "sgd", "lr": 0.01, "nesterov": True, "weight_decay": 5e-4},
            "train": {"epochs": rounds + 2, "global_batch": batch, "label_smoothing": 0.1},
        }
    )


class Blocks:
    """Seconds of blocks of our steps and of the bare loop, which runs in between from inside of `progress.update`."""

    def __init__(self, session: Session, stream: Stream, steps: int) -> None:
        self.session, self.stream, self.slice = session, stream, steps // SLICES
        self.ours: list[float] = []  # of slices, as the others
        self.bare: list[tuple[float, float]] = []
        self._started: float | None = None
        self._update, session.progress.update = session.progress.update, self.update  # type: ignore[method-assign]
        self.model = copy.deepcopy(session.engine.module)
        self.optimizer = bare.sgd(self.model, 0.01)

    def update(self, step: int, **values: float) -> None:
        self._update(step, **values)
        # A block's save falls into the middle of a slice, so that it has time to run beside our steps.
        place = (step + self.slice // 2) % self.slice
        if values:  # a log line, after the step itself
            return
        if place == WARM_UP:
            self._started = time.perf_counter()
        if place == 0:
            self.session.saver.wait()
            if self._started is not None:
                self.ours.append(time.perf_counter() - self._started)
                self.bare.append((self.bare_slice(), self.bare_slice()))

    def bare_slice(self) -> float:
        bare.train(self.model, self.optimizer, self.next_batch, range(WARM_UP))
        start = time.perf_counter()
        bare.train(self.model, self.optimizer, self.next_batch, range(WARM_UP, self.slice))
        return time.perf_counter() - start

    def blocks(self) -> list[tuple[float, float, float]]:
        """Seconds of ours and of both bare loops, of every whole block but the first, whose save allocates."""
        slices = [(own, *pair) for own, pair in zip(self.ours, self.bare, strict=True)]
        starts = range(SLICES, len(slices) - SLICES + 1, SLICES)
        blocks = (zip(*slices[k : k + SLICES], strict=True) for k in starts)
        return [(sum(own), sum(first), sum(second)) for own, first, second in blocks]

    def next_batch(self, step: int) -> tuple[Tensor, Tensor]:
        batch = self.stream.micro_batch(step, 0)
        return batch.images, batch.labels


def own_stream(session: Session, folder: Path) -> Stream:
    """A second stream of the same pictures; the session's holds buffers that its last batch still fills."""
    recipe, schedule = session.recipe, session.schedule
    data, cache = recipe.data, folder / "cache"
    images = load_images(data.name, data.args, root=None, max_gib=1.0, cache_dir=cache).train
    return Stream(
        images,
        session.preparation,
        recipe.data.augment,
        seed=recipe.seed,
        global_batch=schedule.global_batch,
        micro_batch=schedule.micro_batch,
        device=session.world.device,
        channels_last=session.channels_last,
    )


def measure(world: World, net: dict[str, Any], rounds: int, folder: Path) -> list[tuple[float, float, float]]:
    parsed, run_dir = recipe(net, rounds), RunDir(folder / "run")
    assert parsed.log.every_steps == bare.LOOK_EVERY
    run_dir.create(parsed)
    attempt = claim(run_dir.path)
    with Heartbeat(run_dir.path, 0, attempt.number) as heartbeat:
        presence = Presence(run_dir, attempt, heartbeat, StopFlag())
        with Watchdog(presence, 1, 3600.0):  # ours stands still while the bare loop runs
            session = Session(parsed, world, presence)
            try:
                blocks = Blocks(session, own_stream(session, folder), net["steps"])
                fit(session)
            finally:
                session.close()
    attempt.release()
    whole = blocks.blocks()
    assert len(whole) == rounds, len(whole)
    return whole


def judged(blocks: list[tuple[float, float, float]], net: dict[str, Any]) -> dict[str, Any]:
    """Pictures per second of ours over those of bare, from the seconds of blocks of ours and of both bare loops."""
    ratios = [(first + second) / 2 / own for own, first, second in blocks]
    twins = [first / second for _, first, second in blocks]
    low, _, high = statistics.quantiles(twins, n=4, method="inclusive")
    ratio, milliseconds = statistics.median(ratios), 1000 / (net["steps"] - WARM_UP * SLICES)
    if high - low > SPREAD:
        verdict = "too noisy"
    elif len(ratios) < 9:
        verdict = "too few pairs"
    else:
        verdict = "met" if ratio >= net["target"] else "missed"
    return {
        "ratio": round(ratio, 4),
        "target": net["target"],
        "verdict": verdict,
        "aa_median": round(statistics.median(twins), 4),
        "aa_spread": round(high - low, 4),
        "pairs": len(ratios),
        "bare_ms": round(milliseconds * statistics.median(t for block in blocks for t in block[1:]), 3),
        "ours_ms": round(milliseconds * statistics.median(own for own, _, _ in blocks), 3),
        "batch": net["batch"],
        "steps": net["steps"],
        "ratios": [round(value, 4) for value in ratios],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="pairs of ours and bare (default: 11)")
    parser.add_argument("--net", choices=NETS, action="append", help="only this one; may be repeated")
    parser.add_argument("--batch", type=int, help="pictures of a step, instead of the net's own")
    parser.add_argument("--steps", type=int, help="steps of a block, instead of the net's own")
    options = parser.parse_args()
    if options.steps and (options.steps % SLICES or options.steps <= 2 * WARM_UP * SLICES):
        parser.error(f"--steps {options.steps}: no multiple of {SLICES} above {2 * WARM_UP * SLICES}")
    changes = {key: value for key in ("batch", "steps") if (value := getattr(options, key))}
    world, results = World.start(), {}
    for name in options.net or NETS:
        net = NETS[name] | changes
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CIFAR_LAB_CACHE"] = str(Path(folder) / "cache")
            results[name] = judged(measure(world, net, options.rounds, Path(folder)), net)
        shown = results[name]
        print(
            f"{name}: {shown['ratio']:.3f} of the bare loop's pictures per second (target {shown['target']}): "
            f"{shown['verdict']}; a step {shown['ours_ms']} ms over {shown['bare_ms']} ms, "
            f"A/A {shown['aa_median']} with spread {shown['aa_spread']:.1%}",
            flush=True,
        )
    world.close()
    print(json.dumps({"threads": torch.get_num_threads(), "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
