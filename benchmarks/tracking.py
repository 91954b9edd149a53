"""What a tracker costs a training run, alive, dead or with a bad server: `python benchmarks/tracking.py [--pairs N]`.

In one process blocks of real training steps alternate, with a tracker that mirrors to W&B, TensorBoard, MLflow or
trackio and with one that does not, ABBA, so that drift cancels; in the blocks without, the mirror's processes are
stopped. Both write metrics.jsonl every ten steps of about 15 ms; recipes do so every fifty (`log.every_steps`). The
figure is the geometric mean of the paired ratios of time, with its 95 % interval: 1.01 would be one per cent slower.
Run it on a machine that does nothing else.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cifar_lab.runtime import host

host.settle()  # as `cifar-lab train` does, before torch is loaded

import torch

from cifar_lab.models.factory import build_model
from cifar_lab.recipe import Recipe, parse_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.tracker import Tracker

STEPS = 20
LOG_EVERY = 10
BATCH = 32
# In a process of its own, since it would share this one's interpreter lock.
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def do_POST(self):
        if sys.argv[1] == "hangs":
            time.sleep(3600)
        self.send_response(401); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def recipe(*names: str) -> Recipe:
    return parse_recipe(
        {
            "name": "tracking",
            "model": {"name": "speednet", "args": {"width": 32, "stem_stride": 2}},
            "optim": {"lr": 0.01},
            "train": {"epochs": 1, "global_batch": BATCH},
            "tracking": {"to": names, "wandb_project": "benchmark"},
        }
    )


@contextlib.contextmanager
def silent(variable: str = "WANDB_BASE_URL") -> Iterator[dict[str, str]]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {variable: f"http://127.0.0.1:{server.getsockname()[1]}"}


@contextlib.contextmanager
def unreachable() -> Iterator[dict[str, str]]:
    yield {"WANDB_BASE_URL": "http://127.0.0.1:9"}


@contextlib.contextmanager
def serving(behaviour: str) -> Iterator[dict[str, str]]:
    command = [sys.executable, "-c", SERVER, behaviour]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield {"WANDB_BASE_URL": f"http://127.0.0.1:{int(process.stdout.readline())}"}
        finally:
            process.kill()


@contextlib.contextmanager
def full_disk() -> Iterator[dict[str, str]]:
    """W&B writes its own log of the run to a file system without a free byte."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
        try:
            with contextlib.suppress(OSError):
                Path(folder, "filler").write_bytes(bytes(1 << 20))
            yield {"WANDB_MODE": "offline", "WANDB_DIR": folder}
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def dict_of(**environment: str) -> Callable[[], contextlib.AbstractContextManager[dict[str, str]]]:
    """Stores on this machine need no server."""
    return lambda: contextlib.nullcontext(environment)


# Each begins with the tracker's name.
CASES: dict[str, Callable[[], contextlib.AbstractContextManager[dict[str, str]]]] = {
    "wandb: never answers": silent,
    "wandb: answers the door, then never": lambda: serving("hangs"),
    "wandb: unreachable": unreachable,
    "wandb: wrong key": lambda: serving("refuses"),
    "wandb: full disk": full_disk,
    "tensorboard: alive": dict_of(),
    "tensorboard: killed": dict_of(KILL="1"),
    "trackio: alive": dict_of(),
    "trackio: killed": dict_of(KILL="1"),
    "mlflow: alive": dict_of(),
    "mlflow: killed": dict_of(KILL="1"),
    "mlflow: never answers": lambda: silent("MLFLOW_TRACKING_URI"),
}


def measure(tracker: str, environment: dict[str, str], folder: Path, pairs: int, settle: float) -> dict[str, float]:
    """Time with the tracker over time without, for `pairs` pairs of blocks; KILL in the environment: it dies."""
    model = build_model(recipe().model, 10, 32, seed=0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    os.environ.update(
        {
            "WANDB_API_KEY": "local" + "0" * 40,
            "CIFAR_LAB_CACHE": str(folder / "cache"),
            "TRACKIO_DIR": str(folder / "trackio"),
            **environment,
        }
    )
    trackers = {}
    messages: list[str] = []
    for name, names in {"without": (), "with": (tracker,)}.items():
        run = RunDir(folder / name)
        run.create(recipe(*names))
        started = time.perf_counter()
        trackers[name] = Tracker(run, recipe(*names), True, message=messages.append)
        start_seconds = time.perf_counter() - started
    group = trackers["with"].mirrors[tracker].process.pid  # it leads a session of its own
    if "KILL" in environment:
        os.kill(group, signal.SIGKILL)
    count = dict.fromkeys(trackers, 0)

    def block(name: str) -> float:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT if name == "with" else signal.SIGSTOP)
        started = time.perf_counter()
        for _ in range(STEPS):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count[name] += 1
            if count[name] % LOG_EVERY == 0:
                trackers[name].log("train", count[name], count[name] / 100, loss=loss.item(), lr=0.01, grad_norm=1.0)
        return time.perf_counter() - started

    deadline = time.monotonic() + settle  # a process that starts takes a core for a second, once a run
    while time.monotonic() < deadline:
        block("with")
    logs = []
    for pair in range(pairs):
        order = ("with", "without") if pair % 2 else ("without", "with")
        seconds = {name: block(name) for name in order}
        logs.append(math.log(seconds["with"] / seconds["without"]))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGCONT)
    started = time.perf_counter()
    for tracker in trackers.values():
        tracker.finish()
    error = 1.96 * statistics.stdev(logs) / math.sqrt(pairs)
    assert all(len(RunDir(folder / name).metrics()) == count[name] // LOG_EVERY for name in trackers)
    return {
        "ratio": round(math.exp(statistics.mean(logs)), 4),
        "low": round(math.exp(statistics.mean(logs) - error), 4),
        "high": round(math.exp(statistics.mean(logs) + error), 4),
        "start_ms": round(1000 * start_seconds, 1),
        "end_seconds": round(time.perf_counter() - started, 1),
        "warnings": sum("cifar-lab sync" in message for message in messages),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60, help="pairs of blocks a case (default: 60)")
    parser.add_argument("--settle", type=float, default=8.0, help="seconds before the first pair (default: 8)")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one; may be repeated")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        del os.environ[name]
    results = {}
    for case in options.case or CASES:
        tracker = case.partition(":")[0]
        if importlib.util.find_spec(tracker) is None:
            print(f"{case}: left out, {tracker} is not installed", flush=True)
            continue
        before = dict(os.environ)
        with tempfile.TemporaryDirectory() as folder, CASES[case]() as environment:
            results[case] = measure(tracker, environment, Path(folder), options.pairs, options.settle)
        os.environ.clear()
        os.environ.update(before)
        print(f"{case:38}{results[case]}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
