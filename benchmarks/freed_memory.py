"""What keeping freed memory (`cifar_lab/runtime/host.py`) gives training on a CPU: the same runs with it and without.

    python benchmarks/freed_memory.py [--rounds 3]

Each is `python -m cifar_lab.train` in a process of its own, on drawn pictures; without means that GLIBC_TUNABLES is
set (to nothing), which `host.settle` takes for the user's own choice. In turns, medians; the losses must be equal to
the last bit. Prints JSON on its last line; exit 1 where they are not, or where keeping is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMON = (
    "data.name=shapes data.val_size=0 data.test_limit=500 train.epochs=1 optim.warmup_epochs=0"
    " optim.schedule=constant log.every_steps=10 tracking.wandb_project=null"
)
RUNS = {
    "demo": ("demo", "data.args.num_train=40000"),
    "resnet18, width 16": ("resnet18", "data.limit=6400 train.global_batch=128 model.args.width=16"),
    "vit_custom, width 128": ("vit_custom", "data.limit=3200 train.global_batch=64 model.args.width=128"),
}
NOISE = 0.03


def trained(name: str, kept: bool, folder: Path) -> dict[str, Any]:
    """summary.json of one run."""
    recipe, overrides = RUNS[name]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"CIFAR_LAB_CACHE": str(folder / "cache")} | ({} if kept else {"GLIBC_TUNABLES": ""})
    command = [sys.executable, "-m", "cifar_lab.train", str(ROOT / "recipes" / f"{recipe}.yaml"), "--fresh"]
    command += ["--runs", str(folder / "runs"), *COMMON.split(), *overrides.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    return json.loads((Path(done.stdout.splitlines()[-1]) / "summary.json").read_text())


def compare(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Medians of images per second and of peak memory in MB, and their difference made by keeping."""
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for number in range(rounds):
        for kept in (False, True) if number % 2 == 0 else (True, False):
            found[kept].append(trained(name, kept, folder))
    rates = {kept: statistics.median(run["images_per_second"] for run in runs) for kept, runs in found.items()}
    peaks = {kept: statistics.median(run["peak_memory_bytes"] / 1e6 for run in runs) for kept, runs in found.items()}
    return {
        "plain": round(rates[False], 1),
        "kept": round(rates[True], 1),
        "ratio": round(rates[True] / rates[False], 3),
        "more_mb": round(peaks[True] - peaks[False]),
        "equal": len({run["test"]["loss"] for runs in found.values() for run in runs}) == 1,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in RUNS:
            results[name] = found = compare(name, options.rounds, Path(folder))
            print(
                f"{name:22s} {found['kept']:8,.1f} over {found['plain']:8,.1f} images/s: {found['ratio']:.2f} times,"
                f" {found['more_mb']:+d} MB at the peak, {'the same' if found['equal'] else 'ANOTHER'} loss",
                flush=True,
            )
    print(json.dumps({"cores": os.cpu_count(), "results": results}))
    return 0 if all(found["equal"] and found["ratio"] > 1 - NOISE for found in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
