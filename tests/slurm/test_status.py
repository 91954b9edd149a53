"""`cifar-lab status` beside a real queue."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest
from support.commands import ROOT, TRAIN, write_recipe
from support.small import small

from cifar_lab.rundir.attempt import read_attempt

STATUS = [sys.executable, "-m", "cifar_lab", "status"]


@pytest.fixture
def status(slurm):
    """The command, as on a login node of the cluster."""

    def ask(*arguments):
        done = slurm.run([*STATUS, *map(str, arguments)], cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


def until(status, run_dir, *states, seconds=90):
    """Wait for one of these states; returns what is said of the run."""
    deadline = time.monotonic() + seconds
    while (said := json.loads(status(run_dir, "--json")))["effective_state"] not in states:
        assert time.monotonic() < deadline, said
        time.sleep(0.3)
    return said


def test_a_job_is_shown_pending_running_killed_and_finished(slurm, status, tmp_path):
    recipe = write_recipe(tmp_path, small(train__epochs=3000, checkpoint__every_steps=20))
    run_dir = tmp_path / "runs" / "small" / "0-1"
    command = " ".join([*TRAIN, recipe, "--run-dir", str(run_dir)])
    log = tmp_path / "log"
    job = slurm.sbatch("--hold", "--requeue", f"--output={log}", "--open-mode=append", "--wrap", command, cwd=ROOT)
    run_dir.mkdir(parents=True)
    (run_dir / "job.json").write_text(json.dumps({"job_id": job, "submitted": time.time()}))

    table = status(tmp_path / "runs").splitlines()
    assert table[0].split() == ["run", "state", "job"]
    assert table[1].split()[:5] == ["small/0-1", "queued", job, "PENDING", "JobHeldUser"]

    slurm.control("release", job)
    said = until(status, run_dir, "running")
    assert said["job"]["id"] == job
    assert (said["job"]["state"], said["job"]["reason"]) == ("RUNNING", None)
    assert said["job"]["nodes"] in slurm.nodes
    line = status(tmp_path / "runs").splitlines()[1].split()
    assert line[:5] == ["small/0-1", "running", job, "RUNNING", said["job"]["nodes"]]

    slurm.control("requeue", job)  # SIGTERM: the trainer saves, and the job waits some seconds
    said = until(status, run_dir, "queued")
    assert (said["state"], said["job"]["state"], said["active"]) == ("stopped", "PENDING", True)
    assert said["checkpoint_step"] == said["step"] > 0

    assert until(status, run_dir, "running")["step"] >= said["step"]
    os.kill(read_attempt(run_dir).process.pid, signal.SIGKILL)
    assert until(status, run_dir, "lost")["state"] == "running"
    said = json.loads(status(run_dir, "--json"))
    deadline = time.monotonic() + 30
    while said["active"] and time.monotonic() < deadline:
        time.sleep(0.3)
        said = json.loads(status(run_dir, "--json"))
    assert (said["active"], said["job"]) == (False, None), said
    assert said["reason"].endswith(" is gone")
    assert f"  lost   {job}  " in status(tmp_path / "runs")


def test_watch_ends_with_the_job(slurm, status, tmp_path):
    run_dir = tmp_path / "runs" / "small" / "0-1"
    recipe = write_recipe(tmp_path, small(train__epochs=None, train__steps=5))
    command = " ".join([*TRAIN, recipe, "--run-dir", str(run_dir)])
    job = slurm.sbatch(f"--output={tmp_path / 'log'}", "--wrap", command, cwd=ROOT)
    run_dir.mkdir(parents=True)
    (run_dir / "job.json").write_text(json.dumps({"job_id": job, "submitted": time.time()}))
    blocks = status(tmp_path / "runs", "--watch").split("\n\n")
    states = [block.splitlines()[1].split()[1] for block in blocks]
    assert states[-1] == "completed"
    assert "starting" in states
    assert "test error" in blocks[-1]
