"""How fast things start: training up to its first finished step, a second start of a run, and what needs no torch.

    python benchmarks/startup.py [--rounds 9] [--data FOLDER_OF_CIFAR10]

1. From the start of `python -m cifar_lab.train recipes/demo.yaml`, its pictures decoded before, until metrics.jsonl has
   the line of step 1; over `python benchmarks/bare.py first-step`: `import torch, timm` and that same step, no more
   (target 1.3). In turns, ABBA; medians, and the spread of the bare starts beside.
2. The second start of a run, in which reading the source and decoding raise an error: it must get to its next step.
3. Report, dry-run and wrong calls under `-X importtime`: seconds, and whether torch or timm were among the imports.

Without --data or CIFAR_LAB_DATA the pictures are drawn ones. Prints JSON on its last line; exit 1 where 2 or 3 fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEMO = str(ROOT / "recipes" / "demo.yaml")
BARE = [sys.executable, str(ROOT / "benchmarks" / "bare.py"), "first-step"]
TRAIN = [sys.executable, "-m", "cifar_lab.train"]
TARGET, STARTUP_TIMEOUT = 1.3, 600.0
# What decoded once must never do again.
NO_DECODING = """\
import sys
from cifar_lab.data import cache, images
def refuse(*args, **named):
    raise AssertionError("a second start reads or decodes the source")
cache.decode_split = refuse
find = images.find_source
def found(name):
    source = find(name)
    source.load = refuse
    return source
images.find_source = found
from cifar_lab.train import main
sys.exit(main(sys.argv[1:]))
"""


class Starts:
    """Starts of the demo's training with one cache and folder."""

    def __init__(self, folder: Path, data: str | None) -> None:
        self.folder = folder
        self.environment = {**os.environ, "CIFAR_LAB_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
        if data:
            self.changes = [f"data.root={Path(data).resolve()}"]
        else:
            self.changes = ["data.name=shapes", "data.args={num_train: 10000, num_test: 1000, image_size: 32}"]

    def first_step(self, place: Path, program: list[str], step: int = 1) -> float:
        """Seconds from the start of `program` to the log line of `step`; then it is killed."""
        metrics = place / "metrics.jsonl"
        said = self.folder / "said.txt"
        start = time.perf_counter()
        with said.open("w") as file:
            command = [*program, DEMO, "--run-dir", str(place), *self.changes, "log.every_steps=1"]
            process = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=file, stderr=file)
        try:
            while not self._has_step(metrics, step):
                if process.poll() is not None or time.perf_counter() - start > STARTUP_TIMEOUT:
                    raise SystemExit(f"no step {step}:\n{said.read_text()[-3000:]}")
                time.sleep(0.005)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()

    def stopped_run(self, place: Path) -> int:
        """A run that trained some steps and saved itself; the step that it is at."""
        command = [*TRAIN, DEMO, "--run-dir", str(place), *self.changes, "log.every_steps=1"]
        with (self.folder / "said.txt").open("w") as file:
            process = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=file, stderr=file)
            while process.poll() is None and not self._has_step(place / "metrics.jsonl", 2):
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            status = process.wait()
        assert status == 75, (self.folder / "said.txt").read_text()[-3000:]
        return int(json.loads((place / "status.json").read_text())["step"])

    @staticmethod
    def _has_step(metrics: Path, step: int) -> bool:
        try:
            return f'"step": {step},' in metrics.read_text()
        except FileNotFoundError:
            return False


def bare_step() -> float:
    start = time.perf_counter()
    with subprocess.Popen(BARE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    assert line == "done\n", line
    return seconds


def first_steps(starts: Starts, rounds: int) -> dict[str, Any]:
    """The ratio of ours to bare, after one start of each that warms disk and cache."""
    starts.first_step(starts.folder / "warm", TRAIN)
    bare_step()
    ours: list[float] = []
    bare: list[float] = []
    for number in range(rounds):
        for whose in ("ours", "bare") if number % 2 else ("bare", "ours"):
            if whose == "ours":
                ours.append(starts.first_step(starts.folder / f"run{number}", TRAIN))
            else:
                bare.append(bare_step())
        print(f"round {number + 1}: first step after {ours[-1]:.2f} s, bare {bare[-1]:.2f} s", flush=True)
    ratio = statistics.median(ours) / statistics.median(bare)
    low, middle, high = statistics.quantiles(bare, n=4, method="inclusive") if rounds > 1 else bare * 3
    return {
        "ratio": round(ratio, 3),
        "target": TARGET,
        "met": ratio <= TARGET,
        "ours_seconds": round(statistics.median(ours), 3),
        "bare_seconds": round(middle, 3),
        "bare_spread": round((high - low) / middle, 3),
        "rounds": rounds,
    }


def second_start(starts: Starts) -> dict[str, Any]:
    """Continue a stopped run where decoding is an error."""
    place = starts.folder / "second"
    step = starts.stopped_run(place)
    seconds = starts.first_step(place, [sys.executable, "-c", NO_DECODING], step + 1)
    cold = Starts(starts.folder / "cold", None)
    cold.folder.mkdir()
    try:  # the same refusal must stop a start that does decode, or it proves nothing
        cold.first_step(cold.folder / "run", [sys.executable, "-c", NO_DECODING])
        refused = False
    except SystemExit as error:
        refused = "a second start reads or decodes" in str(error)
    return {"continued_at": step, "seconds": round(seconds, 3), "decodes_nothing": refused}


def fast_commands(starts: Starts) -> dict[str, dict[str, Any]]:
    """Commands that need no torch: their seconds, exit status and heavy imports."""
    lab = ["-m", "cifar_lab"]
    broken = starts.folder / "broken.yaml"
    broken.write_text("name: broken\noptim: {name: sgd, lrr: 1}\n")
    run = str(starts.folder / "second")
    commands = {
        "dry-run": ([*lab, "train", DEMO, "--dry-run"], 0),
        "wrong key": ([*lab, "train", DEMO, "optim.lrr=1"], 2),
        "wrong recipe": (["-m", "cifar_lab.train", str(broken)], 2),
        "absent recipe": ([*lab, "train", str(starts.folder / "absent.yaml")], 2),
        "report": ([*lab, "report", run, "--out", str(starts.folder / "report")], 0),
        "report --terminal": ([*lab, "report", run, "--terminal"], 0),
        "report of nothing": ([*lab, "report", str(starts.folder / "absent")], 2),
        "status": ([*lab, "status", run], 0),
        "help": ([*lab, "--help"], 0),
    }
    control = [sys.executable, "-X", "importtime", "-c", "import timm"]
    assert heavy_imports(subprocess.run(control, capture_output=True, text=True).stderr) >= {"torch", "timm"}
    answers = {}
    for name, (command, expected) in commands.items():
        seconds, heavy = [], set()
        for flags in ([], [], [], ["-X", "importtime"]):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *flags, *command], env=starts.environment, cwd=ROOT, capture_output=True, text=True
            )
            if not flags:
                seconds.append(time.perf_counter() - start)
            assert done.returncode == expected, f"{name}: {done.returncode}\n{done.stderr[-2000:]}"
            heavy |= heavy_imports(done.stderr)
        # The first call may fill a cache: a dry run asks a child process, with torch, for the model's size.
        answers[name] = {"seconds": round(statistics.median(seconds[1:]), 3), "heavy": sorted(heavy)}
        print(f"{name:20s} {answers[name]['seconds']:.2f} s, imports of torch: {answers[name]['heavy'] or 'none'}")
    return answers


def heavy_imports(text: str) -> set[str]:
    """Of torch and timm those that `-X importtime` tells of."""
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in text.splitlines() if "import time:" in line}
    return names & {"torch", "timm", "torchvision"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", default=os.environ.get("CIFAR_LAB_DATA"), help="the folder with CIFAR-10")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        starts = Starts(Path(folder), options.data)
        steps = first_steps(starts, options.rounds)
        print(f"first step: {steps['ratio']:.2f} of the bare script's time (target at most {TARGET})")
        second = second_start(starts)
        print(f"second start, at step {second['continued_at']}: decodes nothing: {second['decodes_nothing']}")
        commands = fast_commands(starts)
    print(json.dumps({"first_step": steps, "second_start": second, "commands": commands}))
    return 0 if second["decodes_nothing"] and not any(answer["heavy"] for answer in commands.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
