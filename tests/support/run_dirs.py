"""Run directories in every condition, without training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cifar_lab.files.process import ProcessId
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir, State
from cifar_lab.rundir.heartbeat import Heartbeat

ELSEWHERE = ProcessId("node7", "another boot", 1234, 5)
LEAVE = (
    "import os, sys, pathlib; from cifar_lab.rundir.attempt import claim; claim(pathlib.Path(sys.argv[1])); os._exit(9)"
)


def run_dir(path: Path, state: State, *, step: int = 40, reason: str | None = None, attempt: int = 1) -> RunDir:
    """A run of 100 steps with a status and two validations."""
    made = RunDir(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / "recipe.yaml").write_text("name: x\n")
    made.write_status(state, step, 100, reason=reason, attempt=attempt)
    for done in range(1, step + 1):
        made.append_metrics(split="train", step=done, epoch=done / 10, loss=1.5, images_per_second=1234.5)
        if done % 20 == 0:
            made.append_metrics(split="val", step=done, epoch=done / 10, loss=1.0, accuracy=0.5 + done / 100)
    made.close()
    return made


def held_and_left(path: Path, job_id: str | None = None) -> None:
    """A process claims the directory and is killed."""
    environment = {**os.environ, **({"SLURM_JOB_ID": job_id} if job_id else {})}
    subprocess.run([sys.executable, "-c", LEAVE, str(path)], env=environment, check=False)


def held_elsewhere(path: Path, *, age: float = 0.0, job_id: str | None = None, step: int = 0) -> None:
    """A process on another machine holds the directory and was heard of `age` seconds ago."""
    held = claim(path)
    fields = json.loads((path / "attempt.json").read_text())
    fields |= {"process": vars(ELSEWHERE), "job_id": job_id}
    (path / "attempt.json").write_text(json.dumps(fields))
    heartbeat = Heartbeat(path, 0, held.number)
    heartbeat._process = ELSEWHERE
    heartbeat.step(step)
    heartbeat._write()
    for file in (path / "attempt.json", path / "heartbeat" / "0.json"):
        os.utime(file, (time.time() - age,) * 2)


def record(path: Path, **fields: Any) -> None:
    """A line of requeues.jsonl."""
    known = {"time": time.time(), "when": "end", "job_id": "17", "restart": 0, "attempt": 0, "checkpoint_step": None}
    path.mkdir(parents=True, exist_ok=True)
    with open(path / "requeues.jsonl", "a") as file:
        file.write(json.dumps(known | fields) + "\n")
