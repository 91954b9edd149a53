"""Whether this checkout is slower than another one of the same project: start, step and stream, in turns in one run.

    python benchmarks/revisions.py OTHER_CHECKOUT [--rounds 5] [--only start --only step --only stream]

Each round runs each part in both checkouts, every time in a process of its own, the first of a pair taking turns:
`start`, seconds from a process's start to the log line of the first step, its pictures decoded before; `step`, a
step of our loop over that of a bare one (`step_overhead.py --net small --steps 600`); `stream`, pictures per second of
`input_pipeline.py`, over what its memory allows. Above 1.1 this checkout is slower by more than a tenth. Commands that
need no torch, and the report: `report.py --against`. Prints JSON on its last line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

THIS = Path(__file__).resolve().parents[1]
FIRST_STEP = """\
import sys
from pathlib import Path
import startup
starts = startup.Starts(Path(sys.argv[1]), None)
if not (starts.folder / "warm").exists():
    starts.first_step(starts.folder / "warm", startup.TRAIN)
print(starts.first_step(starts.folder / f"run{len(list(starts.folder.iterdir()))}", startup.TRAIN))
"""


def printed(checkout: Path, *arguments: str) -> str:
    """The last line that Python prints with these arguments in a checkout's benchmarks, with its package."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "benchmarks")])}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(arguments[:2])} failed:\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1]


def first_step(checkout: Path, folder: Path) -> dict[str, float]:
    """Seconds to the first step."""
    folder.mkdir(exist_ok=True)
    return {"start": float(printed(checkout, "-c", FIRST_STEP, str(folder)))}


def step(checkout: Path, folder: Path) -> dict[str, float]:
    """A step's time over the bare loop's."""
    result = json.loads(
        printed(checkout, "benchmarks/step_overhead.py", "--net", "small", "--rounds", "5", "--steps", "600")
    )
    return {"step": 1 / result["results"]["small"]["ratio"]}


def stream(checkout: Path, folder: Path) -> dict[str, float]:
    """Time of a picture of each kind of stream, in units of what only moves its bytes."""
    rates = json.loads(printed(checkout, "benchmarks/input_pipeline.py", "--repeats", "3"))["rates"]
    return {f"stream {name}": rates["bound_32"] / rate for name, rate in rates.items() if name.startswith("ours")}


PARTS: dict[str, Callable[[Path, Path], dict[str, float]]] = {"start": first_step, "step": step, "stream": stream}


def compared(other: Path, parts: list[str], rounds: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Of each figure the median of both checkouts, and that of the ratios of its pairs."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds):
        for part in parts:
            both = [(THIS, folder / "this"), (other, folder / "other")]
            measured = {place[0]: PARTS[part](*place) for place in (both if number % 2 else both[::-1])}
            for name in measured[THIS].keys() & measured[other].keys():
                pairs.setdefault(name, []).append((measured[THIS][name], measured[other][name]))
        print(f"round {number + 1} of {rounds}", flush=True)
    return {
        name: {
            "this": round(statistics.median(ours for ours, _ in values), 3),
            "other": round(statistics.median(theirs for _, theirs in values), 3),
            "ratio": round(statistics.median(ours / theirs for ours, theirs in values), 3),
            "ratios": [round(ours / theirs, 3) for ours, theirs in values],
        }
        for name, values in sorted(pairs.items())
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of another revision")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = compared(options.other.resolve(), options.only or list(PARTS), options.rounds, Path(folder))
    for name, result in results.items():
        print(f"{name:42s} this {result['this']:8.3f}  other {result['other']:8.3f}  ratio {result['ratio']:.3f}")
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
