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
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from links import environment_of, limit, two_nodes

TOLERANCE = 0.20
RECIPE: dict[str, Any] = {
    "name": "plan_network",
    "data": {"name": "shapes", "args": {"num_train": 256, "num_test": 16, "image_size": 32}, "val_size": 0},
    "model": {"name": "vit", "args": {"width": 512, "depth": 6, "heads": 8, "patch_size": 16}},
    "optim": {"name": "adamw", "lr": 1e-5},
    "train": {"steps": 1000, "epochs": None, "global_batch": 4},
}
UNLIMITED_STEPS, SECONDS_A_RATE = 15, 15
PORT = 29533


def work(folder: str, rates: list[float]) -> None:
    """One process: seconds of a step on the unlimited link and at each rate, into FOLDER/RANK.json."""
    from real_steps import Steps

    steps = Steps(RECIPE, Path(folder))
    assert steps.world.world_size == 2
    steps.timed(3)
    found = {"unlimited": statistics.median(steps.timed(UNLIMITED_STEPS))}
    for rate in rates:
        limit(rate)
        expected = 2 * 4 * sum(p.numel() for p in steps.model.parameters()) / (rate * 1e6 / 8) / 2
        count = max(1, min(UNLIMITED_STEPS, round(SECONDS_A_RATE / expected)))
        found[f"{rate:g}"] = statistics.median(steps.timed(count))
    (Path(folder) / f"{steps.world.rank}.json").write_text(json.dumps(found))
    steps.world.close()


def measured(rates: list[float]) -> dict[str, float]:
    """Seconds of a step by rate, the slower of the two processes."""
    with tempfile.TemporaryDirectory() as folder, two_nodes() as names:
        processes = []
        for rank, name in enumerate(names):
            command = ["ip", "netns", "exec", name, sys.executable, str(Path(__file__).resolve())]
            command += ["--work", folder, "--rates", *map(str, rates)]
            processes.append(subprocess.Popen(command, env=environment_of(rank, PORT)))
        statuses = [process.wait() for process in processes]
        if any(statuses):
            raise SystemExit("a process failed")
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(2)]
    return {name: max(one[name] for one in found) for name in found[0]}


def predicted(rates: list[float], unlimited: float) -> dict[str, float]:
    """Seconds that each rate adds to a step, by the plan; `unlimited` is the measured step that calibrates it."""
    from cifar_lab.planning.footprint import known_sizes, model_footprint
    from cifar_lab.planning.make import make_setup
    from cifar_lab.planning.memory import Layout
    from cifar_lab.planning.speed import exposed_seconds, traffic
    from cifar_lab.recipe import parse_recipe

    recipe = parse_recipe(RECIPE)
    footprint = model_footprint(recipe, known_sizes(recipe))
    found = {}
    for rate in rates:
        setup = make_setup(1, "cpu", nodes=2, link=f"{rate / 1000:g}")
        sent = traffic(footprint, recipe, Layout("ddp", False, 2, 2, 1, "cpu"), setup)
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
