"""Peak resident memory of the demo beside a bare loop, and its growth over many epochs.

    python benchmarks/memory.py [--epochs 10] [--soak-epochs 50] [--data FOLDER_OF_CIFAR10]

Peak: `python -m cifar_lab.train recipes/demo.yaml` from start to end, pictures decoded before, and `benchmarks/bare.py
demo` with the same net and pictures; the system's own figure of each process (ru_maxrss), which counts the pages of
the memory-mapped pictures too. Ours may take 250 MB more. Soak: the same recipe for more epochs, with a validation and
a checkpoint in each; growth is the median resident memory of the last tenth of the epochs over that of the second
tenth. 1 GB would be a failure; 50 MB is what it is held to. Without --data or CIFAR_LAB_DATA the pictures are drawn
ones. Prints JSON on its last line; exit 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, "-m", "cifar_lab.train", str(ROOT / "recipes" / "demo.yaml")]
BARE = [sys.executable, str(ROOT / "benchmarks" / "bare.py"), "demo"]
MB = 1e6
EXTRA_MB, GROWTH_MB = 250.0, 50.0
SAMPLE_SECONDS = 0.1


class Watched:
    """A process run to its end: the peak of its resident memory, and samples of it with the epoch they fell into."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, metrics: Path | None) -> None:
        said = folder / "said.txt"
        self.samples: list[tuple[float, int]] = []
        started = time.perf_counter()
        with said.open("w") as file:
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=file)
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            self._sample(process.pid, metrics)
            time.sleep(SAMPLE_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{said.read_text()[-3000:]}")
        self.peak = usage.ru_maxrss * 1024
        self.seconds = time.perf_counter() - started

    def _sample(self, pid: int, metrics: Path | None) -> None:
        if metrics is None or not metrics.exists():
            return
        epochs = re.findall(r'"epoch": ([0-9.]+)', metrics.read_text()[-2000:])
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, IndexError):  # it ends
            return
        if epochs and pages:
            self.samples.append((float(epochs[-1]), pages * resource.getpagesize()))


class Demo:
    """The demo's recipe and its bare twin, in one folder with one cache."""

    def __init__(self, folder: Path, data: str | None) -> None:
        self.folder = folder
        # A parent with much memory would be in the figure: it is kept across exec, so torch must not be here.
        assert "torch" not in sys.modules
        self.environment = {**os.environ, "CIFAR_LAB_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
        if data:
            self.changes = [f"data.root={Path(data).resolve()}"]
        else:
            self.changes = ["data.name=shapes", "data.args={num_train: 50000, num_test: 10000, image_size: 32}"]

    def ours(self, name: str, epochs: int, *more: str) -> Watched:
        place = self.folder / name
        # The demo warms up for two epochs, which one must be able to shorten.
        warm_up = ["optim.warmup_epochs=0"] if epochs <= 2 else []
        command = [*TRAIN, "--run-dir", str(place), *self.changes, f"train.epochs={epochs}", *warm_up, *more]
        return Watched(command, self.environment, self.folder, place / "metrics.jsonl")

    def bare(self, epochs: int) -> Watched:
        (decoded,) = [path.parent for path in (self.folder / "cache" / "data").glob("*/train_images.npy")]
        return Watched([*BARE, str(decoded), "--epochs", str(epochs)], self.environment, self.folder, None)


def peaks(demo: Demo, epochs: int, rounds: int) -> dict[str, Any]:
    demo.ours("warm", 1)
    ours, bare = [], []
    for number in range(rounds):
        ours.append(demo.ours(f"peak{number}", epochs).peak / MB)
        bare.append(demo.bare(epochs).peak / MB)
        print(f"peak of {epochs} epochs: ours {ours[-1]:.0f} MB, bare {bare[-1]:.0f} MB", flush=True)
    extra = statistics.median(ours) - statistics.median(bare)
    return {
        "ours_mb": round(statistics.median(ours), 1),
        "bare_mb": round(statistics.median(bare), 1),
        "extra_mb": round(extra, 1),
        "bound_mb": EXTRA_MB,
        "met": extra <= EXTRA_MB,
        "epochs": epochs,
        "rounds": rounds,
    }


def soak(demo: Demo, epochs: int, limit: int | None) -> dict[str, Any]:
    more = [] if limit is None else [f"data.limit={limit}", "train.global_batch=100"]
    watched = demo.ours("soak", epochs, *more)
    tenth = epochs / 10

    def resident(first: float, last: float) -> float:
        return statistics.median(size for epoch, size in watched.samples if first <= epoch < last) / MB

    early, late = resident(tenth, 2 * tenth), resident(epochs - tenth, epochs)
    return {
        "early_mb": round(early, 1),
        "late_mb": round(late, 1),
        "growth_mb": round(late - early, 1),
        "peak_mb": round(watched.peak / MB, 1),
        "bound_mb": GROWTH_MB,
        "met": late - early <= GROWTH_MB,
        "epochs": epochs,
        "seconds": round(watched.seconds, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="of the two whose peaks are compared (default: 10)")
    parser.add_argument("--rounds", type=int, default=1, help="times that they are compared (default: 1)")
    parser.add_argument("--soak-epochs", type=int, default=50, help="at least 10, or 0 for no soak (default: 50)")
    parser.add_argument("--soak-images", type=int, help="training pictures of the soak (default: all)")
    parser.add_argument("--data", default=os.environ.get("CIFAR_LAB_DATA"), help="the folder with CIFAR-10")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(Path(folder), options.data)
        results["peak"] = peaks(demo, options.epochs, options.rounds)
        print(f"ours takes {results['peak']['extra_mb']:.0f} MB more than bare (bound {EXTRA_MB:.0f})", flush=True)
        if options.soak_epochs:
            results["soak"] = soak(demo, options.soak_epochs, options.soak_images)
            print(f"{options.soak_epochs} epochs grow it by {results['soak']['growth_mb']:.1f} MB")
    print(json.dumps(results))
    return 0 if all(result["met"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
