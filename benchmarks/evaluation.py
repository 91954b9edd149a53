"""Pictures per second of an evaluation over those of training, the same net, interleaved.

    python benchmarks/evaluation.py [--repeats 5] [--train-batch 64] [--batch 128 512 1000]

Training is a micro-batch's forward and backward pass and the optimizer's step, evaluation what `evaluate` does with a
batch, both with their streams. The pictures are random bytes, 32 px. Prints JSON on its last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from cifar_lab.data.images import ImageSet
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import EvalStream, Stream
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import parse_recipe
from cifar_lab.runtime import host
from cifar_lab.runtime.make import make_engine, uses_channels_last
from cifar_lab.runtime.world import World
from cifar_lab.training.evaluation import evaluate

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NETS = {
    "resnet18": {"name": "resnet", "args": {"depth": 18}},
    "vit_custom": {"name": "vit"},
}


def random_images(count: int) -> ImageSet:
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return ImageSet(pixels, torch.randint(0, 10, (count,)), torch.arange(count), tuple("abcdefghij"), "random")


def runs_of(world: World, net: str, train_batch: int, batches: list[int]) -> dict[str, Callable[[], int]]:
    """Training steps and evaluations of one net, each returning how many pictures it took."""
    optim = {"name": "sgd", "lr": 0.1} if net == "resnet18" else {"name": "adamw", "lr": 1e-4}
    recipe = parse_recipe(
        {
            "name": "benchmark",
            "data": {"name": "cifar10", "augment": {"crop_padding": 4, "flip": True}},
            "model": NETS[net],
            "optim": optim,
            "train": {"epochs": 1, "global_batch": train_batch},
        }
    )
    model = build_model(recipe.model, 10, 32, seed=0)
    channels_last = uses_channels_last(model, recipe)
    engine = make_engine(world, recipe, model, 1)
    preparation = Preparation(32, "bicubic", MEAN, STD)
    images = random_images(8 * train_batch)
    stream = Stream(
        images,
        preparation,
        recipe.data.augment,
        seed=recipe.seed,
        global_batch=train_batch,
        micro_batch=train_batch,
        device=world.device,
        channels_last=channels_last,
    )

    def train() -> int:
        for step in range(2):
            engine.forward_backward(stream.micro_batch(step, 0), index=0, torch_seed=step)
            engine.step(step, 1e-3)
        engine.health(torch.zeros(()))  # waits for a GPU
        return 2 * train_batch

    def evaluating(batch: int) -> Callable[[], int]:
        pictures = EvalStream(
            random_images(batch), preparation, batch=batch, device=world.device, channels_last=channels_last
        )

        def run() -> int:
            result = evaluate(engine.predict, world, pictures)
            assert result is not None
            return result.count

        return run

    return {"train": train} | {f"evaluate {batch}": evaluating(batch) for batch in batches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--train-batch", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512, 1000])
    args = parser.parse_args()
    host.settle()
    torch.manual_seed(0)
    world = World.start()
    results = {}
    for net in NETS:
        runs = runs_of(world, net, args.train_batch, args.batch)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(args.repeats + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                count = run()
                if repeat:
                    rates[name].append(count / (time.perf_counter() - start))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        ratios = {name: value / medians["train"] for name, value in medians.items()}
        results[net] = {"images_per_second": medians, "over_training": ratios}
        for name, value in medians.items():
            print(f"{net:12s} {name:16s} {value:10,.1f} pictures/s {ratios[name]:6.2f} of training", flush=True)
    world.close()
    print(json.dumps({"threads": torch.get_num_threads(), "results": results}))


if __name__ == "__main__":
    main()
