"""Batch jobs of slurm/train.sbatch on a test cluster, and what they leave."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.commands import PYTHON, ROOT, environment, write_recipe
from support.slurm_cluster import Cluster

from cifar_lab.rundir.attempt import Attempt, read_attempt
from cifar_lab.rundir.directory import RunDir, Status
from cifar_lab.status.standing import read_standing

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "OUT_OF_MEMORY")


@dataclass(frozen=True)
class Job:
    """A submitted job, its recipe file, and the run directory that it trains in."""

    slurm: Cluster
    id: str
    recipe: str
    run: RunDir
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def ended(self, seconds: float = 400) -> str:
        """Wait for the job's end; returns Slurm's state."""
        try:
            return self.slurm.until(self.id, *ENDED, seconds=seconds)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from error

    def restarts(self) -> int:
        return int(self.slurm.show(self.id)["Restarts"])

    def status(self) -> Status | None:
        return self.run.status()

    def attempt(self) -> Attempt | None:
        """Who holds the run directory, or did last."""
        return read_attempt(self.run.path)

    def checkpoint(self) -> int:
        """The step of the newest checkpoint, 0 without one."""
        return read_standing(self.run.path).checkpoint_step or 0

    def steps(self) -> list[int]:
        """The step of each training line in metrics.jsonl."""
        return [line["step"] for line in self.run.metrics() if line["split"] == "train"]

    def decisions(self) -> list[dict[str, Any]]:
        """What the wrapper was told, in order."""
        return [json.loads(line) for line in (self.run.path / "requeues.jsonl").read_text().splitlines()]

    def told(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`cifar-lab status` of this run, as its user asks on the login node."""
        command = [PYTHON, "-m", "cifar_lab", "status", self.recipe, "--run-dir", str(self.run.path), *arguments]
        return self.slurm.run(command, cwd=ROOT, env=environment(), timeout=60)

    def until(self, what: Callable[[], Any], seconds: float = 240) -> Any:
        """Wait until `what()` is true while the job lives; returns it."""
        deadline, state = time.monotonic() + seconds, ""
        while not (answer := what()):
            assert state not in ENDED, f"{state}\n{self.log()[-4000:]}"
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.log()[-4000:]}"
            time.sleep(0.1)
            state = self.slurm.state(self.id)
        return answer


def submit(
    slurm: Cluster, folder: Path, mapping: Mapping[str, Any], *arguments: str, sbatch: tuple[str, ...] = (), **more: str
) -> Job:
    """Submit `mapping` to slurm/train.sbatch by hand; runs, log and recipe are in `folder`, `more` is environment."""
    recipe = write_recipe(folder, mapping)
    options = ["--cpus-per-task=2", "--time=20", f"--output={folder}/%j.log", *sbatch]
    words = [recipe, "--runs", str(folder / "runs"), *arguments]
    variables = environment(CIFAR_LAB_PYTHON=sys.executable, **more)
    where = slurm.run([PYTHON, "-m", "cifar_lab", "status", *words, "--where"], cwd=ROOT, env=variables)
    run_dir = where.stdout.strip() or str(folder / "runs" / "none")
    job = slurm.sbatch(*options, "slurm/train.sbatch", *words, cwd=ROOT, env=variables)
    return Job(slurm, job, recipe, RunDir(run_dir), folder / f"{job}.log")
