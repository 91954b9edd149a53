"""launch/submit.py on a cluster: what it sends is what runs, and a sweep queues only what is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import ROOT, environment, write_recipe
from support.hostile import TEXTS
from support.slurm_jobs import ENDED
from support.small import small
from support.submitting import LAUNCH

from cifar_lab.rundir.directory import RunDir

# Long enough to be seen and ended while it trains.
STEPS = 200
SWEEP = ["--sweep", "optim.lr=1e-3,3e-4", "seed=0,1,2"]
NAME = f"test_{os.getpid()}"
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def submit(slurm) -> Iterator[Submit]:
    """Call submit.py as a user on the login node; its logs are taken away at the end."""

    def call(*arguments: str | Path, **how: str) -> subprocess.CompletedProcess[str]:
        cwd = how.pop("cwd", ROOT)
        variables = environment(CIFAR_LAB_PYTHON=sys.executable, **how)
        command = [LAUNCH / "submit.py", "--job-name", NAME, "--time", "20", *arguments]
        return slurm.run([sys.executable, *command], cwd=cwd, env=variables, timeout=120)

    yield call
    for log in (ROOT / "slurm" / "logs").glob(f"{NAME}-*.log"):
        log.unlink()


def queued(done: subprocess.CompletedProcess[str]) -> str:
    """The id of the job that a call queued."""
    assert done.returncode == 0, done.stderr
    found = re.match(r"job (\d+) is queued", done.stdout)
    assert found, done.stdout
    return found[1]


def test_directives_end_at_the_first_command(slurm) -> None:
    """What Slurm documents, and quoting does not even lean on: the script holds no raw newline of a user's."""
    script = "#!/bin/bash\n#SBATCH --time=7\nset -- 'x\n#SBATCH --time=1\n'\n#SBATCH --time=2\n"
    job = slurm.run(["sbatch", "--parsable", "--hold"], input=script).stdout.strip()
    assert slurm.show(job)["TimeLimit"] == "00:07:00"
    slurm.run(["scancel", job])


def test_slurm_runs_what_was_asked_for(slurm, submit: Submit, tmp_path: Path) -> None:
    """Hostile names, folders and overrides arrive as they are; header lines and a variable of sbatch change nothing."""
    canary = tmp_path / "canary"
    folder = tmp_path / "-$(touch canary) `touch canary`; #SBATCH --partition=low 'it''s' é"
    folder.mkdir()
    tags = [text.replace("CANARY", str(canary)) for name, text in TEXTS.items()
            if name not in ("control characters", "not UTF-8", "long")]  # fmt: skip
    write_recipe(folder, small(train__epochs=None, train__steps=4, optim__warmup_epochs=0))
    (folder / "small.yaml").rename(folder / "-$(touch canary).yaml")
    words = ["--", "-$(touch canary).yaml", f"tracking.tags={json.dumps(tags, ensure_ascii=False)}"]
    outer = {"SBATCH_TIMELIMIT": "3", "SBATCH_PARTITION": "low", "SLURM_JOB_ID": "1", "SLURM_ARRAY_JOB_ID": "1"}
    done = submit("--runs=my 'runs'", "--partition=debug", *words, cwd=folder, **outer)
    job = queued(done)
    (run,) = (RunDir(path.parent) for path in (folder / "my 'runs'").rglob("job.json"))
    assert json.loads((run.path / "job.json").read_text())["job_id"] == job
    log = ROOT / "slurm" / "logs" / f"{NAME}-{job}.log"
    assert slurm.until(job, *ENDED) == "COMPLETED", log.read_text()
    assert f"== job {job} on node" in log.read_text()
    assert [slurm.show(job)[field] for field in ("TimeLimit", "Partition")] == ["00:20:00", "debug"]
    assert run.status().state == "completed"
    assert run.recipe().tracking.tags == tuple(tags)
    assert not list(tmp_path.rglob("canary")) and not (ROOT / "canary").exists()


def test_a_refusal_of_slurm_is_shown(slurm, submit: Submit, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    done = submit(recipe, "--runs", tmp_path / "runs", "--partition=nowhere")
    assert done.returncode == 1 and not done.stdout
    assert "Slurm did not take the job: " in done.stderr and "invalid partition" in done.stderr.lower()
    assert not list(tmp_path.rglob("job.json"))


def test_a_sweep_queues_again_only_what_is_missing(slurm, submit: Submit, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small(train__epochs=None, train__steps=STEPS, train__global_batch=8))
    call = [recipe, "--gpus", "0", "--runs", str(tmp_path / "runs"), *SWEEP]
    done = submit(*call, "--max-parallel", "4")
    job = queued(done)
    assert "array of 6 of 6 members" in done.stdout
    runs = {}
    for file in (tmp_path / "runs").rglob("job.json"):
        array, _, number = json.loads(file.read_text())["job_id"].partition("_")
        assert array == job
        runs[int(number)] = RunDir(file.parent)
    assert sorted(runs) == list(range(6))
    victim = runs[1]
    wait_for(lambda: (status := victim.status()) is not None and status.state == "running")
    slurm.run(["scancel", "--signal=STOP", f"{job}_1"])  # else it may be done before it is cancelled
    again = submit(*call)
    assert (again.returncode, again.stdout) == (0, "nothing is missing, so nothing was queued\n")
    assert again.stderr.count("left out: member") == 6
    slurm.run(["scancel", f"{job}_1"])
    for number in range(6):
        state = slurm.until(f"{job}_{number}", *ENDED, seconds=400)
        assert state == ("CANCELLED" if number == 1 else "COMPLETED"), number
    assert {number for number, run in runs.items() if run.status().state != "completed"} == {1}
    attempts = {number: run.status().attempt for number, run in runs.items()}

    done = submit(*call)
    second = queued(done)
    assert "array of 1 of 6 members" in done.stdout and done.stderr.count(", completed (") == 5
    assert slurm.until(f"{second}_1", *ENDED, seconds=400) == "COMPLETED"
    assert all(run.status().state == "completed" for run in runs.values())
    now = {number: run.status().attempt for number, run in runs.items()}
    assert now == attempts | {1: attempts[1] + 1}
    steps = [line["step"] for line in victim.metrics() if line["split"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    done = submit(*call)
    assert (done.returncode, done.stdout) == (0, "nothing is missing, so nothing was queued\n")


def wait_for(what: Callable[[], bool], seconds: float = 180) -> None:  # six start at once, on two cores
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
