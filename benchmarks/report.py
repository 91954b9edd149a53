"""How long the report of 50 runs takes, and commands that people wait for: each as a process, from start to end.

    python benchmarks/report.py [--rounds 7] [--against OTHER_CHECKOUT]

50 runs of ten experiments, each with 150 epochs of metrics, predictions and a checkpoint's state, are written to a
temporary folder (target for their report: 3 s). With --against each command runs in both checkouts, in turns. Prints
medians in seconds, and JSON on its last line.
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
QUICK = ("--help", "recipes", "status", "plan recipes/resnet18.yaml")


def write_runs(folder: Path) -> None:
    """50 runs of 150 epochs, four log lines each."""
    from support.written_runs import STUDY_ERRORS, written

    kinds = [(name, error, []) for name, error in STUDY_ERRORS.items()]
    kinds += [("resnet18", 0.08, ["optim.lr=0.05"]), ("demo", 0.2, [])]
    for name, error, overrides in kinds:
        for seed in range(5):
            written(folder, name, seed, error=error + 0.002 * seed, epochs=150, count=10_000, overrides=overrides)


def seconds(checkout: Path, arguments: list[str]) -> float:
    """From the start of `cifar-lab ARGUMENTS` to its end."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    setup = configparser.ConfigParser()
    setup.read(checkout / "setup.cfg")
    module = setup["options.entry_points"]["console_scripts"].partition("=")[2].strip().partition(":")[0]
    command = [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, in the same rounds")
    options = parser.parse_args()
    checkouts = {"this": ROOT} | ({"other": options.against.resolve()} if options.against else {})
    measured: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder, "runs"))
        calls = {call: call.split() for call in QUICK}
        calls["report of 50 runs"] = ["report", f"{folder}/runs", "--out", f"{folder}/report"]
        for number in range(-1, options.rounds):  # the first fills caches and does not count
            for call, arguments in calls.items():
                for name in list(checkouts)[:: 1 if number % 2 else -1]:
                    taken = seconds(checkouts[name], arguments)
                    if number >= 0:
                        measured.setdefault(call, {}).setdefault(name, []).append(taken)
    results = {
        call: {name: round(statistics.median(values), 3) for name, values in by_name.items()}
        for call, by_name in measured.items()
    }
    for call, by_name in results.items():
        print(f"{call:28s} {'  '.join(f'{name} {value:6.3f} s' for name, value in by_name.items())}")
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
