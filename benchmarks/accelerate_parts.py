"""What a training step would take with parts of Accelerate that the engine does without: its time over ours.

    python benchmarks/accelerate_parts.py [--rounds 60] [--precision fp32] [--accumulation 1]

The small net of `benchmarks/step_overhead.py`, steps of the real engine. The ways take turns in one process, ten steps
each; a ratio compares those of one round. `again` is ours once more: what the machine adds by itself. Prints JSON on
its last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from cifar_lab.runtime import host

host.settle()  # as `cifar-lab train` does, before torch is loaded

import torch  # noqa: E402

from cifar_lab.data.stream import Batch  # noqa: E402
from cifar_lab.models.factory import build_model  # noqa: E402
from cifar_lab.recipe import parse_recipe  # noqa: E402
from cifar_lab.runtime.engine import Engine  # noqa: E402
from cifar_lab.runtime.make import make_engine  # noqa: E402
from cifar_lab.runtime.world import World  # noqa: E402

STEPS, WARM_UP, BATCH = 10, 2, 8
Step = Callable[[int], None]


def make_step(world: World, accumulation: int, precision: str, change: Callable[[Engine], Any]) -> Step:
    """A training step of an engine of its own, after `change`."""
    recipe = parse_recipe(
        {
            "name": "parts",
            "data": {"name": "shapes", "args": {"num_train": 100, "num_test": 10, "image_size": 32}},
            "model": {"name": "speednet", "args": {"width": 8, "stem_stride": 2}},
            "optim": {"name": "sgd", "lr": 0.01},
            "train": {"epochs": 1, "global_batch": BATCH * accumulation, "precision": precision},
        }
    )
    engine = make_engine(world, recipe, build_model(recipe.model, 10, 32, seed=0), accumulation)
    change(engine)
    batch = Batch(torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,)), torch.arange(BATCH), None)

    def step(number: int) -> None:
        for index in range(accumulation):
            engine.forward_backward(batch, index=index, torch_seed=number)
        engine.step(number, 0.01)

    return step


def with_backward(engine: Any) -> None:
    """`accelerator.backward`, which divides by the accumulation."""

    def forward_backward(batch: Batch, *, index: int, torch_seed: int) -> Any:
        last = index == engine.accumulation_steps - 1
        with nullcontext() if last else engine.accelerator.no_sync(engine.model):
            loss = engine.loss(batch, index=index, torch_seed=torch_seed)
            engine.accelerator.backward(loss)
        return loss.detach()

    engine.forward_backward = forward_backward


def with_optimizer(engine: Any) -> None:
    """The optimizer that `prepare` makes."""
    engine.accelerator.sync_gradients = True
    engine.optimizer = engine.accelerator.prepare(engine.optimizer)


def with_accumulate(engine: Any) -> None:
    """`accelerator.accumulate`, which counts micro-batches itself."""

    def forward_backward(batch: Batch, *, index: int, torch_seed: int) -> Any:
        with engine.accelerator.accumulate(engine.model):
            loss = engine.loss(batch, index=index, torch_seed=torch_seed)
            loss.backward(engine._share)
        return loss.detach()

    engine.forward_backward = forward_backward


WAYS: dict[str, Callable[[Engine], Any]] = {
    "ours": lambda engine: None,
    "again": lambda engine: None,
    "backward": with_backward,
    "optimizer": with_optimizer,
    "accumulate": with_accumulate,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--accumulation", type=int, default=1)
    options = parser.parse_args()
    world = World.start()
    ways = {name: make_step(world, options.accumulation, options.precision, way) for name, way in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        names = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for name in names:
            for step in range(WARM_UP):
                ways[name](step)
            start = time.process_time()
            for step in range(STEPS):
                ways[name](step)
            seconds[name].append((time.process_time() - start) / STEPS)
    found = {
        name: round(statistics.median(a / b for a, b in zip(times, seconds["ours"], strict=True)), 4)
        for name, times in seconds.items()
        if name != "ours"
    }
    milliseconds = round(1000 * statistics.median(seconds["ours"]), 3)
    for name, ratio in found.items():
        print(f"{name}: {ratio:.3f} of a step of ours, {milliseconds} ms")
    print(json.dumps({"ours_ms": milliseconds, "ratios": found, "threads": torch.get_num_threads()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
