"""What talking costs: two connected processes against two unconnected ones, and over slow links.

    python benchmarks/scaling.py [--rounds 5]                                 # this machine
    python benchmarks/scaling.py --links [--rates 1000 100 10] [--rounds 5]   # two network namespaces; needs root

Every process has one thread, the real engine and the real stream, and trains ResNet-18 on --batch pictures a step. All
processes start once and wait for orders, so that kinds alternate within one minute: A B C, C B A, ... Each pair
`connected` (DDP) does what the pair `unconnected` does and averages its gradients besides; `efficiency` is the rate of
the first over that of the second in the same round, the median of the rounds, and `spread` the difference of two turns
of unconnected ones in a round. `speed_up` is over one process that has the machine to itself. Prints JSON last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from links import environment_of, limit, two_nodes

TARGET = 0.95
FIRST_PORT = 29541
COMPRESSIONS = ("none", "fp16", "bf16")


def recipe(batch: int, compression: str = "none") -> dict[str, Any]:
    return {
        "name": "scaling",
        "data": {
            "name": "shapes",
            "args": {"num_train": 4096, "num_test": 16, "image_size": 32},
            "val_size": 0,
            "augment": {"crop_padding": 4, "flip": True},
        },
        "model": {"name": "resnet", "args": {"depth": 18}},
        "optim": {"name": "sgd", "lr": 0.01},
        "train": {
            "steps": 100_000,
            "global_batch": batch,
            "grad_compression": None if compression == "none" else compression,
        },
    }


class Crew:
    """Processes that do so many steps when told to, all at the same time."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], batch: int, connected: bool) -> None:
        self.processes, self.batch, self.connected = processes, batch, connected

    def rate(self, steps: int, only: int | None = None) -> float:
        """Pictures per second of all processes, or of the first `only` while the others wait."""
        workers = self.processes[:only]
        for worker in workers:
            print(steps, file=worker.stdin, flush=True)
        seconds = [float(self._answer(worker)) for worker in workers]
        if self.connected:
            seconds = [max(seconds)] * len(seconds)
        return sum(steps * self.batch / s for s in seconds)

    def _answer(self, worker: subprocess.Popen[str]) -> str:
        line = worker.stdout.readline()
        if not line:
            raise SystemExit("a process failed")
        return line


@contextmanager
def crew(
    folder: str, batch: int, *, compression: str | None, port: int, namespaces: Sequence[str] = ()
) -> Iterator[Crew]:
    """Two processes; `compression` None leaves them unconnected. Each in its namespace, if there are any."""
    processes = []
    mapping = json.dumps(recipe(batch if compression is None else 2 * batch, compression or "none"))
    try:
        for rank in range(2):
            if compression is None:
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            elif namespaces:
                environment = environment_of(rank, port)
            else:
                environment = environment_of(rank, port, "127.0.0.1", "lo")
            command = ["ip", "netns", "exec", namespaces[rank]] if namespaces else []
            command += [sys.executable, str(Path(__file__).resolve()), "--work", folder, mapping]
            processes.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
            )
        made = Crew(processes, batch, compression is not None)
        made.rate(2)  # DDP makes its buckets anew after the first step
        yield made
    finally:
        for process in processes:
            process.stdin.close()
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def work(folder: str, mapping: str) -> None:
    """One process: for each number on standard input that many steps, and their seconds on standard output."""
    from real_steps import Steps

    steps = Steps(json.loads(mapping), Path(folder))
    for line in sys.stdin:
        print(steps.together(int(line)), flush=True)
    steps.world.close()


def medians(rounds: list[dict[str, float]], base: str) -> dict[str, float]:
    """Median over rounds of each rate, and of each rate over that of `base` in the same round."""
    found = {f"{name}_rate": statistics.median(one[name] for one in rounds) for name in rounds[0]}
    for name in rounds[0]:
        if name != base:
            found[f"{name}_efficiency"] = statistics.median(one[name] / one[base] for one in rounds)
    return found


def alternate(crews: dict[str, Crew], rounds: int, steps: dict[str, int]) -> list[dict[str, float]]:
    """Rates of all crews in each round; every second round runs backwards."""
    results = []
    for i in range(rounds):
        order = list(crews) if i % 2 == 0 else list(reversed(crews))
        results.append({name: crews[name].rate(steps[name]) for name in order})
        print("  ".join(f"{name} {results[-1][name]:8.1f}/s" for name in crews), flush=True)
    return results


def on_this_machine(batch: int, rounds: int, steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        apart = stack.enter_context(crew(folder, batch, compression=None, port=0))
        joined = stack.enter_context(crew(folder, batch, compression="none", port=FIRST_PORT))
        results = []
        for i in range(rounds):
            row: dict[str, float] = {}
            kinds = {
                "unconnected": lambda: apart.rate(steps),
                "connected": lambda: joined.rate(steps),
                "unconnected_again": lambda: apart.rate(steps),
                "alone": lambda: apart.rate(steps, only=1),
            }
            for name in kinds if i % 2 == 0 else reversed(kinds):
                row[name] = kinds[name]()
            results.append(row)
            print("  ".join(f"{name} {row[name]:8.1f}/s" for name in kinds), flush=True)
    apart_both = [(row["unconnected"] + row["unconnected_again"]) / 2 for row in results]
    return {
        **{f"{name}_rate": statistics.median(row[name] for row in results) for name in results[0]},
        "efficiency": statistics.median(row["connected"] / both for row, both in zip(results, apart_both, strict=True)),
        "spread": statistics.median(abs(row["unconnected"] / row["unconnected_again"] - 1) for row in results),
        "speed_up": statistics.median(row["connected"] / row["alone"] for row in results),
        "unconnected_speed_up": statistics.median(
            both / row["alone"] for row, both in zip(results, apart_both, strict=True)
        ),
    }


def over_links(batch: int, rounds: int, rates: list[float], seconds: float) -> dict[str, dict[str, float]]:
    """For each rate of the link in Mbit/s, what `medians` says of unconnected pairs and of each compression."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, two_nodes() as names, ExitStack() as stack:
        crews = {"unconnected": stack.enter_context(crew(folder, batch, compression=None, port=0, namespaces=names))}
        for i, kind in enumerate(COMPRESSIONS):
            crews[kind] = stack.enter_context(
                crew(folder, batch, compression=kind, port=FIRST_PORT + 1 + i, namespaces=names)
            )
        for rate in rates:
            for name in names:
                limit(rate, name)
            print(f"{rate:g} Mbit/s", flush=True)
            # As many steps as fit into `seconds`, by one step of each kind.
            steps = {kind: max(1, round(seconds * made.rate(1) / (2 * batch))) for kind, made in crews.items()}
            found[f"{rate:g}"] = medians(alternate(crews, rounds, steps), "unconnected")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", action="store_true", help="over network namespaces with limited links")
    parser.add_argument("--rates", nargs="+", type=float, default=[1000, 100, 10], help="Mbit/s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="pictures of a step in each process")
    parser.add_argument("--steps", type=int, default=5, help="steps of a kind in a round (without --links)")
    parser.add_argument("--seconds", type=float, default=10, help="length of a kind in a round (with --links)")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return 0
    settings = {"batch": arguments.batch, "rounds": arguments.rounds}
    if arguments.links:
        links = over_links(arguments.batch, arguments.rounds, arguments.rates, arguments.seconds)
        for rate, values in links.items():
            shown = "  ".join(
                f"{kind} {values[f'{kind}_rate']:.1f}/s = {values[f'{kind}_efficiency']:.3f}" for kind in COMPRESSIONS
            )
            print(f"{rate:>5} Mbit/s: unconnected {values['unconnected_rate']:.1f}/s; {shown}")
        print(json.dumps({**settings, "links": links}))
        return 0
    found = on_this_machine(arguments.batch, arguments.rounds, arguments.steps)
    print(f"two connected processes over two unconnected ones: {found['efficiency']:.3f} (target {TARGET})")
    print(f"unconnected ones among themselves: {found['spread']:.3f}")
    print(f"speed-up over one process: {found['speed_up']:.2f}; unconnected: {found['unconnected_speed_up']:.2f}")
    print(json.dumps({**settings, "steps": arguments.steps, **found}))
    return 0 if found["efficiency"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
