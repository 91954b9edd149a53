"""A run trained undisturbed, and once more with kill -9 at random moments.

The kills are aimed at steps, saves and evaluations in turn, and at all processes, the launcher alone or one worker
alone.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cifar_lab.errors import UserError
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import read_beat
from cifar_lab.verify.verdict import Verdict, compare

AIMS = ("step", "save", "evaluation", "any moment")
VICTIMS = ("all", "launcher", "worker")
POLL_SECONDS = 0.001
AIM_SECONDS = 60.0
ORPHAN_SECONDS = 30.0


@dataclass(frozen=True)
class Trial:
    """How to train: the recipe, on how many processes, and where everything goes."""

    recipe: str
    overrides: tuple[str, ...]
    processes: int
    folder: Path

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Begin, or continue, the run `name`, out of reach of a Ctrl-C."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)]
        command = [sys.executable, *(launcher if self.processes > 1 else []), "-m", "cifar_lab.train", self.recipe]
        command += [*self.overrides, "log.every_steps=1", "--run-dir", str(self.folder / name)]
        environment = os.environ | {"CIFAR_LAB_INDEX_LOG": str(self.folder / f"{name}.samples")}
        if self.processes > 1:
            environment.setdefault("OMP_NUM_THREADS", "1")
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a run that nobody disturbs. Raises UserError if it fails."""
        if process.wait() != 0:
            raise UserError(f"the run `{name}` failed, see {self.folder / f'{name}.log'}")


def empty_folder(folder: Path) -> Path:
    """`folder`, made. Raises UserError; what lies there already would be compared in place of new runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: name a new folder with --out")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; name another with --out") from error
    return folder.absolute()


def verify(trial: Trial, kills: int, chance: random.Random) -> Verdict:
    """Train `trial` undisturbed and with `kills` kills, print each kill, and compare."""
    trial.finish("undisturbed", trial.start("undisturbed"))
    times = [line["time"] for line in RunDir(trial.folder / "undisturbed").metrics()]
    seconds = max(times) - min(times)  # of training: a start may take far longer on a busy machine
    print(f"undisturbed: {trial.folder / 'undisturbed'}, {seconds:.0f} s")
    for number in range(kills):
        victim = VICTIMS[number % len(VICTIMS)] if trial.processes > 1 else "all"
        told = disturb(trial, AIMS[number % len(AIMS)], victim, chance, seconds)
        print(f"kill {number + 1}: {told or 'the run completed first'}", flush=True)
        if told is None:
            if number == 0:
                raise UserError("nothing was proven: make the run longer, so that it can be killed")
            break
    trial.finish("killed", trial.start("killed"))
    return compare(trial.folder, exact=trial.processes == 1)


def disturb(trial: Trial, aim: str, victim: str, chance: random.Random, seconds: float) -> str | None:
    """Start or continue the run and kill it once it has made progress: who, when; None if it ended before."""
    run_dir = RunDir(trial.folder / "killed")
    metrics = run_dir.path / "metrics.jsonl"
    process = trial.start("killed")
    family: list[psutil.Process] = []
    try:
        before = metrics.stat().st_size if metrics.exists() else 0
        _until(process, lambda: metrics.exists() and metrics.stat().st_size > before)
        time.sleep(chance.uniform(0.0, 0.03 * seconds))
        if aim == "save":
            hit = _until(process, lambda: any(run_dir.checkpoints.glob("*.partial/*")))
        elif aim == "evaluation":
            hit = _until(process, lambda: (beat := read_beat(run_dir.path, 0)) and beat.phase == "validation")
        else:
            time.sleep(chance.uniform(0.0, 0.1))
            hit = True
        if process.poll() is not None:
            return None
        family = _chosen("all", process, chance)
        _kill(_chosen(victim, process, chance))
        step = max((line["step"] for line in run_dir.metrics()), default=0)
        process.wait()
        if psutil.wait_procs(family, ORPHAN_SECONDS)[1]:
            raise UserError(f"workers outlived their launcher by {ORPHAN_SECONDS:g} s and were killed")
        return f"{victim} during {aim if hit else AIMS[-1]}, after step {step}"
    finally:
        _kill([*family, *_chosen("all", process, chance)])


def _until(process: subprocess.Popen[bytes], condition: Callable[[], object]) -> bool:
    """Wait until `condition()` holds, the process ends, or a minute is over; whether it held."""
    deadline = time.monotonic() + AIM_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(POLL_SECONDS)
    return False


def _chosen(victim: str, launcher: subprocess.Popen[bytes], chance: random.Random) -> list[psutil.Process]:
    """The processes to kill. No group holds all of them: torchrun gives each worker a session of its own."""
    with suppress(psutil.NoSuchProcess):  # it has ended
        first = psutil.Process(launcher.pid)
        if victim == "worker":
            return [chance.choice(first.children())]
        return [first, *(first.children(recursive=True) if victim == "all" else [])]
    return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
