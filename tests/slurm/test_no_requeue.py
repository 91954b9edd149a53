"""What ends for good: what would fail again, what its user ended, and what gets nowhere; and that status says why."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import yaml
from support.slurm_jobs import Job, submit
from support.small import small

# Longer than any of these tests lets it run.
LONG = {"train__epochs": None, "train__steps": 100_000, "checkpoint__every_steps": 20, "checkpoint__keep_last": 2}


def shown(job: Job) -> tuple[str, str]:
    """State and reason by `cifar-lab status --json`; the reason is in its table, too."""
    told = json.loads(job.told("--json").stdout)
    assert told["reason"][:40] in job.told().stdout
    return told["effective_state"], told["reason"]


def test_a_run_that_diverges(slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, small(optim={"name": "sgd", "lr": 1e30}))
    assert job.ended() == "FAILED"
    assert job.restarts() == 0
    state, reason = shown(job)
    assert state == "failed"
    assert "not finite" in reason
    assert job.log().rstrip().endswith(f"failed: {reason}")


def test_a_bad_recipe(slurm, tmp_path: Path) -> None:
    """One with a wrong key, seen before anything starts, and one that its number of processes does not divide."""
    job = submit(slurm, tmp_path, small(train__epochss=3), sbatch=("--nodes=2",))
    assert job.ended() == "FAILED"
    assert job.restarts() == 0
    assert "small.yaml:" in job.log() and "train.epochss" in job.log() and "did you mean" in job.log()
    assert "train.epochss" in job.told().stderr
    assert "Traceback" not in job.log()

    uneven = submit(slurm, tmp_path, small(train__global_batch=15), "--nproc", "2")
    assert uneven.ended() == "FAILED"
    assert uneven.restarts() == 0
    state, reason = shown(uneven)
    assert state == "failed"
    assert "15" in reason and "2 processes" in reason


def test_cancelled_by_its_user(slurm, tmp_path: Path) -> None:
    """It saves first, and the same line continues it later."""
    recipe = small(**LONG)
    job = submit(slurm, tmp_path, recipe, "--nproc", "2")
    job.until(lambda: job.checkpoint())
    slurm.run(["scancel", job.id])
    assert job.ended() == "CANCELLED"
    saved, state = job.checkpoint(), shown(job)[0]
    assert state == "stopped", job.log()
    assert saved == job.status().step == job.steps()[-1]
    assert job.restarts() == 0
    assert not (job.run.path / "STOP").exists()

    again = submit(slurm, tmp_path, recipe)
    again.until(lambda: again.checkpoint() > saved)
    (again.run.path / "STOP").touch()
    assert again.ended() == "COMPLETED", again.log()
    assert again.restarts() == 0
    assert shown(again) == ("stopped", "STOP")
    assert f"from step {saved}" in again.log()
    assert again.log().rstrip().splitlines()[-1].startswith("stopped: ")
    assert again.steps() == list(range(1, again.status().step + 1))


def test_shorter_than_its_own_signal(slurm, tmp_path: Path) -> None:
    """The script wants to be told five minutes before the end, so Slurm would tell it at once, each time."""
    job = submit(slurm, tmp_path, small(**LONG), sbatch=("--time=5",))
    assert job.ended() == "FAILED", job.log()
    assert job.restarts() == 0
    state, reason = shown(job)
    assert state == "failed"
    assert "the signal to save 300 s before the end" in reason and "--time" in reason
    assert not (job.run.path / "status.json").exists()


def test_three_attempts_without_a_newer_checkpoint(slurm, tmp_path: Path) -> None:
    """The trainer is killed in each of them, before it can save."""
    job = submit(slurm, tmp_path, small(**LONG | {"checkpoint__every_steps": 99_999}))
    for number in (1, 2, 3):
        job.until(lambda number=number: (holder := job.attempt()) and holder.number == number)
        job.until(lambda: (status := job.status()) and status.step and status.attempt == job.attempt().number)
        os.kill(job.attempt().process.pid, signal.SIGKILL)
    assert job.ended() == "FAILED", job.log()
    assert job.restarts() == 2
    state, reason = shown(job)
    assert state in ("failed", "lost")
    assert "given up: 3 starts together saved 0 steps of the " in reason
    assert [record["decision"] for record in job.decisions()] == ["go", "requeue"] * 2 + ["go", "failed"]
    assert yaml.safe_load((job.run.path / "recipe.yaml").read_text())["checkpoint"]["every_steps"] == 99_999
