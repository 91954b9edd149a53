"""The communication time that `cifar-lab plan` predicts beside what two nodes on a slow link take.

    python benchmarks/plan_network.py [--rates 1000 100 10]

Needs root and iproute2. Two network namespaces stand for two nodes; `tc tbf` limits the link between them to so many
Mbit/s in each direction. Each runs one process of the real engine under DDP; the time that a rate adds to a step is the
step's time less that of the unlimited link. The plan's part that computes is calibrated by one measured step. Prints
JSON on its last line; exit 1 where an error is larger than 20 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOLERANCE = 0.20
RECIPE: dict[str, Any] = {
    "name": "plan_network",
    "data": {"name": "shapes", "args": {"num_train": 256, "num_test": 16, "image_size": 32}, "val_size": 0},
    "model": {"name": "vit", "args": {"width": 512, "depth": 6, "heads": 8, "patch_size": 16}},
    "optim": {"name": "adamw", "lr": 1e-5},
    "train": {"steps": 1000, "epochs": None, "global_batch": 4},
}
UNLIMITED_STEPS, SECONDS_A_RATE = 15, 15


def work(folder: str, rates: list[float]) -> None:
    """One process: seconds of a step on the unlimited link and at each rate, into FOLDER/RANK.json."""
    import torch

    from cifar_lab.data.images import load_images
    from cifar_lab.data.stream import Stream
    from cifar_lab.model_factory import build_model
    from cifar_lab.recipe import parse_recipe
    from cifar_lab.runtime.make import make_engine
    from cifar_lab.runtime.world import World
    from cifar_lab.schedule import Schedule

    recipe, world = parse_recipe(RECIPE), World.start()
    assert world.world_size == 2
    data = recipe.data
    images, _, stats = load_images(data.name, data.args, root=None, max_gib=1.0, cache_dir=Path(folder) / "cache")
    schedule = Schedule.make(recipe, len(images), world.world_size)
    model = build_model(recipe.model, images.num_classes, 32, seed=0)
    engine = make_engine(world, recipe, model, schedule.accumulation_steps)
    stream = Stream(
        images,
        augment=data.augment,
        image_size=32,
        interpolation=data.interpolation,
        mean=stats.mean,
        std=stats.std,
        seed=0,
        global_batch=schedule.global_batch,
        micro_batch=schedule.micro_batch,
        device=torch.device("cpu"),
    )
    (m,) = schedule.micro_batches(world.rank)

    def seconds_of(steps: int) -> float:
        taken = []
        for step in range(steps):
            world.barrier()
            start = time.perf_counter()
            engine.forward_backward(stream.micro_batch(step, m), index=0, torch_seed=step)
            engine.step(step, 1e-5)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    seconds_of(3)
    found = {"unlimited": seconds_of(UNLIMITED_STEPS)}
    for rate in rates:
        limit = ["tbf", "rate", f"{rate:g}mbit", "burst", "128kb", "latency", "200ms"]
        subprocess.run(["tc", "qdisc", "replace", "dev", "eth0", "root", *limit], check=True)
        expected = 2 * 4 * sum(p.numel() for p in model.parameters()) / (rate * 1e6 / 8) / 2
        found[f"{rate:g}"] = seconds_of(max(1, min(UNLIMITED_STEPS, round(SECONDS_A_RATE / expected))))
    (Path(folder) / f"{world.rank}.json").write_text(json.dumps(found))
    world.close()


@contextmanager
def two_nodes() -> Iterator[list[str]]:
    """Names of two network namespaces with addresses 10.78.0.1 and 10.78.0.2 on their eth0."""
    names = [f"plan{os.getpid()}-{i}" for i in (1, 2)]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for i, name in enumerate(names, 1):
            run("ip", "-n", name, "addr", "add", f"10.78.0.{i}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def run(*command: str) -> None:
    """Run a command; its error message ends the benchmark."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


def measured(rates: list[float]) -> dict[str, float]:
    """Seconds of a step by rate, the slower of the two processes."""
    with tempfile.TemporaryDirectory() as folder, two_nodes() as names:
        processes = []
        for rank, name in enumerate(names):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": "0",
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "10.78.0.1",
                "MASTER_PORT": "29533",
                "GLOO_SOCKET_IFNAME": "eth0",
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            }
            command = ["ip", "netns", "exec", name, sys.executable, str(Path(__file__).resolve())]
            command += ["--work", folder, "--rates", *map(str, rates)]
            processes.append(subprocess.Popen(command, env=environment))
        statuses = [process.wait() for process in processes]
        if any(statuses):
            raise SystemExit("a process failed")
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(2)]
    return {name: max(one[name] for one in found) for name in found[0]}


def predicted(rates: list[float], unlimited: float) -> dict[str, float]:
    """Seconds that each rate adds to a step, by the plan; `unlimited` is the measured step that calibrates it."""
    from cifar_lab.plan_inputs import known_sizes, model_footprint
    from cifar_lab.planning.hardware import LINKS, find_link
    from cifar_lab.planning.network import Topology, traffic
    from cifar_lab.planning.timing import exposed_seconds
    from cifar_lab.recipe import parse_recipe

    recipe = parse_recipe(RECIPE)
    footprint = model_footprint(recipe, known_sizes(recipe))
    found = {}
    for rate in rates:
        topology = Topology(1, 2, LINKS["pcie3"], find_link(f"{rate / 1000:g}"))
        sent = traffic(footprint, "ddp", topology, precision="fp32", accumulation_steps=1)
        found[f"{rate:g}"] = exposed_seconds(sent, unlimited)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", nargs="+", type=float, default=[1000, 100, 10], help="Mbit/s")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.rates)
        return 0
    real = measured(arguments.rates)
    plan = predicted(arguments.rates, real["unlimited"])
    print(f"a step on the unlimited link: {real['unlimited']:.3f} s")
    print(f"{'Mbit/s':>8} {'step s':>8} {'added s':>8} {'plan s':>8} {'error':>7}")
    results = {}
    for rate, planned in plan.items():
        added = real[rate] - real["unlimited"]
        error = planned / added - 1
        results[rate] = {"step": real[rate], "added": added, "plan": planned, "error": error}
        print(f"{rate:>8} {real[rate]:8.3f} {added:8.3f} {planned:8.3f} {error:+7.1%}")
    print(json.dumps({"unlimited": real["unlimited"], "rates": results}))
    return 0 if all(abs(result["error"]) <= TOLERANCE for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
