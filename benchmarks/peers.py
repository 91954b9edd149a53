"""One epoch of the same networks in Lightning, transformers.Trainer, a plain loop, and ours.

    python benchmarks/peers.py [--rounds 3] [--small-images 50000] [--resnet18-images 5120]

Needs the extra `bench` and the pictures of CIFAR-10 (CIFAR_LAB_DATA). Each is a process of its own, written as its
users write it (peer_*.py, and `cifar-lab train`), with the same pictures, crop 4 and flip, batch 128, SGD, one epoch
and one pass over the test split. The peers read torchvision's CIFAR10 and load with two workers. `wall` is from the
start of the process to its end, `steady` the pictures per second after the first tenth of the steps; median of the
rounds, which alternate. Ours runs with a warm cache of decoded pictures, as the peers' files are decoded; `first_start`
is its wall clock without one. Prints JSON on its last line; exit 1 where ours is not ahead of each, or not 3x the best
on the small network.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEERS = ("lightning", "transformers", "loop")
BATCH = 128
TARGET = {"small": 3.0, "resnet18": 1.0}
MODELS = {
    "small": {"name": "speednet", "args": {"width": 8, "stem_stride": 2}},
    "resnet18": {"name": "resnet", "args": {"depth": 18}},
}
LEARNING_RATE = {"small": 0.2, "resnet18": 0.05}  # as in peer_parts.py, which imports torch
Measure = dict[str, float]


def recipe(network: str, images: int, test_images: int) -> dict[str, Any]:
    """The recipe of ours, one epoch; twenty log lines."""
    return {
        "name": f"peers-{network}",
        "data": {
            "name": "cifar10",
            "val_size": 0,
            "limit": images,
            "test_limit": test_images,
            "augment": {"crop_padding": 4, "flip": True},
        },
        "model": MODELS[network],
        "optim": {
            "name": "sgd",
            "lr": LEARNING_RATE[network],
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "schedule": "constant",
        },
        "train": {"epochs": 1, "global_batch": BATCH},
        "eval": {"batch": 500},
        "log": {"every_steps": max(1, images // BATCH // 20)},
    }


def write_pictures(folder: Path, images: int, test_images: int) -> None:
    """The pictures that ours takes too, in the files of torchvision's CIFAR10."""
    from cifar_lab.data.images import load_images
    from cifar_lab.data.splits import cut_off

    loaded = load_images("cifar10", {}, root=None, max_gib=16.0)
    train, test = loaded.train, loaded.test
    ids = {
        "data_batch_1": (train, cut_off(train, images)[0].ids),
        "test_batch": (test, cut_off(test, test_images)[0].ids),
    }
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name, (pictures, chosen) in ids.items():
        rows = pictures.images[chosen].reshape(len(chosen), -1).numpy()
        (batches / name).write_bytes(pickle.dumps({"data": rows, "labels": pictures.labels[chosen].tolist()}))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": list(train.classes)}))


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Seconds of the whole process, and what it printed; its error message ends the benchmark."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    return seconds, done.stdout


def peer(name: str, folder: Path, network: str) -> Measure:
    script = Path(__file__).with_name(f"peer_{name}.py")
    wall, output = timed([sys.executable, str(script), str(folder), network, str(BATCH)], dict(os.environ))
    return {"wall": wall, **json.loads(output.splitlines()[-1])}


def ours(folder: Path, network: str, images: int, test_images: int) -> Measure:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe(network, images, test_images)))
    run_dir = folder / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("cifar-lab")), "train", str(path), "--run-dir", str(run_dir)]
    wall, _ = timed(command, {**os.environ, "CIFAR_LAB_CACHE": str(folder / "cache")})
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    first = next(line for line in train if line["step"] >= max(1, images // BATCH // 10))
    steady = BATCH * (train[-1]["step"] - first["step"]) / (train[-1]["time"] - first["time"])
    accuracy = json.loads((run_dir / "summary.json").read_text())["test"]["accuracy"]
    return {"wall": wall, "steady": steady, "accuracy": accuracy}


def compare(folder: Path, network: str, images: int, test_images: int, rounds: int) -> dict[str, Any]:
    """Medians of each by its name, and ours over the best peer."""
    write_pictures(folder, images, test_images)
    runs: dict[str, Callable[[], Measure]] = {name: lambda name=name: peer(name, folder, network) for name in PEERS}
    runs["ours"] = lambda: ours(folder, network, images, test_images)
    first_start = runs["ours"]()["wall"]
    found: dict[str, list[Measure]] = {name: [] for name in runs}
    for i in range(rounds):
        for name in runs if i % 2 == 0 else reversed(runs):
            found[name].append(runs[name]())
            shown = "  ".join(f"{key} {value:9.2f}" for key, value in found[name][-1].items())
            print(f"{network:9s} {name:13s} {shown}", flush=True)
    medians = {name: {key: statistics.median(m[key] for m in ms) for key in ms[0]} for name, ms in found.items()}
    return {
        "images": images,
        "medians": medians,
        "first_start": first_start,
        "wall_ratio": min(medians[name]["wall"] for name in PEERS) / medians["ours"]["wall"],
        "steady_ratio": medians["ours"]["steady"] / max(medians[name]["steady"] for name in PEERS),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--small-images", type=int, default=50_000)
    parser.add_argument("--resnet18-images", type=int, default=5_120)
    parser.add_argument("--test-images", type=int, default=2_000)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for network in arguments.networks:
            images = arguments.small_images if network == "small" else arguments.resnet18_images
            images -= images % BATCH  # transformers would make a step of the rest, and the others none
            results[network] = compare(Path(folder) / network, network, images, arguments.test_images, arguments.rounds)
    ahead = True
    for network, result in results.items():
        wall, steady = result["wall_ratio"], result["steady_ratio"]
        good = min(wall, steady) >= TARGET[network] and min(wall, steady) > 1
        ahead &= good
        print(
            f"{network}: ours over the best peer: {wall:.2f}x in wall clock, {steady:.2f}x in images per second "
            f"(target {TARGET[network]:g}x): {'met' if good else 'missed'}"
        )
    print(json.dumps({"batch": BATCH, "networks": results}))
    return 0 if ahead else 1


if __name__ == "__main__":
    sys.exit(main())
