"""slurm/train.sbatch and launch/node.sh as people call them: without options, anywhere, inside of jobs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, environment, write_recipe
from support.slurm_cluster import cluster
from support.slurm_jobs import ENDED, Job
from support.small import small
from support.submitting import LAUNCH

from cifar_lab.rundir.directory import RunDir

SHORT = {"train__epochs": None, "train__steps": 3, "optim__warmup_epochs": 0}
NAME = f"by_hand_{os.getpid()}"
WITHOUT_GPUS = re.compile("Requested node configuration is not available|Invalid generic resource")


@pytest.mark.parametrize("script", ["train", "sweep"])
def test_it_asks_for_a_gpu_and_says_where_none_is_seen(slurm, tmp_path: Path, script: str) -> None:
    """Those of the test cluster are known to Slurm alone."""
    recipe = write_recipe(tmp_path, small(**SHORT))
    words = ["--array=1", f"slurm/{script}.sbatch", recipe, "--runs", str(tmp_path / "runs")]
    words += ["--sweep", "seed=0,1"] if script == "sweep" else []
    variables = environment(CIFAR_LAB_PYTHON=sys.executable)
    job = slurm.sbatch(f"--output={tmp_path}/log", *words, cwd=ROOT, env=variables)
    asked = slurm.show(job)
    assert re.search(r"gpu:1\b", asked.get("TresPerNode", "")) and asked["CPUs/Task"] == "4", asked
    assert slurm.until(f"{job}_1", *ENDED) == "COMPLETED", (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    told = (
        "no GPU is seen here (Slurm gave 1 to this node): training on CPUs; ask for one with sbatch --gpus-per-node=1"
    )
    assert log.count(told) == 1
    assert log.index(told) < log.index("node 0 of 1")


def test_a_cluster_without_gpus_refuses_one_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small(**SHORT))
    variables = environment(CIFAR_LAB_PYTHON=sys.executable)
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster", num_nodes=1, gpus=0) as made:
        refused = made.run(["sbatch", "slurm/train.sbatch", recipe], cwd=ROOT, env=variables)
        assert refused.returncode == 1
        said = WITHOUT_GPUS.search(refused.stderr)
        assert said, refused.stderr
        (line,) = (line for line in (ROOT / "slurm" / "train.sbatch").read_text().splitlines() if "--gpus-per" in line)
        assert line.startswith("#SBATCH --gpus-per-node=1 ") and " # 0 where there are none: " in line
        assert said[0].removeprefix("Requested node ") in line
        made.sbatch("--hold", "--gpus-per-node=0", "slurm/train.sbatch", recipe, cwd=ROOT, env=variables)
        call = [
            sys.executable,
            LAUNCH / "submit.py",
            recipe,
            "--runs",
            tmp_path / "runs",
            "--begin=now+600",
            "--job-name",
            NAME,
        ]
        refused = made.run(call, cwd=ROOT, env=variables)
        assert refused.returncode == 1
        assert (
            "Slurm did not take the job: " in refused.stderr
            and "(on a cluster without GPUs: --gpus 0)" in refused.stderr
        )
        done = made.run([*call, "--gpus", "0"], cwd=ROOT, env=variables)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["train.sbatch", "slurm/train.sbatch"])
def test_called_in_another_folder(slurm, tmp_path: Path, script: str) -> None:
    """By a relative or an absolute path; the log lies where it was called, and paths are seen from there."""
    write_recipe(tmp_path, small(**SHORT))
    variables = environment(CIFAR_LAB_PYTHON=sys.executable)
    path = os.path.relpath(ROOT / "slurm" / "train.sbatch", tmp_path) if script == "train.sbatch" else ROOT / script
    job = slurm.sbatch(
        "--gpus-per-node=0", str(path), "small.yaml", "tracking.tags=['a b']", cwd=tmp_path, env=variables
    )
    state = slurm.until(job, *ENDED)
    assert state == "COMPLETED", list(tmp_path.iterdir())
    log = (tmp_path / f"cifar-lab-{job}.log").read_text()
    (run,) = (tmp_path / "runs" / "small").iterdir()
    assert RunDir(run).status().state == "completed", log


def test_a_copy_elsewhere_says_what_it_needs(slurm, tmp_path: Path) -> None:
    (tmp_path / "mine.sbatch").write_bytes((ROOT / "slurm" / "train.sbatch").read_bytes())
    job = slurm.sbatch("mine.sbatch", "small.yaml", cwd=tmp_path)
    assert slurm.until(job, *ENDED) == "FAILED"
    log = (tmp_path / f"cifar-lab-{job}.log").read_text()
    assert log == "no checkout here: call sbatch in it, or with the path of its slurm/train.sbatch\n"


def test_a_job_that_a_member_of_an_array_submits_requeues_itself(slurm, tmp_path: Path) -> None:
    """sbatch hands SLURM_ARRAY_JOB_ID of the job that it is called in on to the new one."""
    recipe = write_recipe(tmp_path, small(train__epochs=None, train__steps=100_000, checkpoint__every_steps=20))
    inner = f"sbatch --parsable --cpus-per-task=1 --time=20 --output={tmp_path}/%j.log slurm/train.sbatch {recipe}"
    outer = f"[ $SLURM_ARRAY_TASK_ID = 1 ] || {inner} --runs {tmp_path}/runs >{tmp_path}/id; sleep 600"
    variables = environment(CIFAR_LAB_PYTHON=sys.executable)
    array = slurm.sbatch("--array=0-1", "--requeue", "--output=/dev/null", "--wrap", outer, cwd=ROOT, env=variables)
    members = [f"{array}_0", f"{array}_1"]
    try:
        for member in members:
            slurm.until(member, "RUNNING")
        started = Job(slurm, members[1], recipe, RunDir(tmp_path / "none"), tmp_path / "none.log")
        started.until(lambda: (tmp_path / "id").exists() and (tmp_path / "id").read_text().strip())
        job_id = (tmp_path / "id").read_text().strip()
        (place,) = started.until(lambda: list((tmp_path / "runs" / "small").glob("*")))
        job = Job(slurm, job_id, recipe, RunDir(place), tmp_path / f"{job_id}.log")
        job.until(job.checkpoint)
        assert f"== job {job_id} on" in job.log()
        slurm.run(["scancel", "--signal=USR1", "--batch", job_id])
        job.until(lambda: job.restarts() == 1)
        assert f"job {job_id}: the time limit is near" in job.log()
        assert [slurm.show(member)["Restarts"] for member in members] == ["0", "0"]
        assert [slurm.state(member) for member in members] == ["RUNNING", "RUNNING"]
        slurm.run(["scancel", job_id])
    finally:
        slurm.run(["scancel", array])


def test_members_of_an_array_requeue_themselves(slurm, tmp_path: Path) -> None:
    """One after the other; the last one has the number of the array as its own."""
    recipe = write_recipe(tmp_path, small(train__epochs=None, train__steps=100_000, checkpoint__every_steps=20))
    words = ["slurm/sweep.sbatch", recipe, "--runs", f"{tmp_path}/runs", "--sweep", "seed=0,1"]
    options = ["--array=0-1", "--cpus-per-task=1", "--time=20", f"--output={tmp_path}/%a.log"]
    array = slurm.sbatch(*options, *words, cwd=ROOT, env=environment(CIFAR_LAB_PYTHON=sys.executable))
    members = [f"{array}_{number}" for number in (0, 1)]
    runs = tmp_path / "runs" / "small"
    try:
        jobs = [Job(slurm, member, recipe, RunDir(runs), tmp_path / f"{member[-1]}.log") for member in members]
        for number, job in enumerate(jobs):
            job.until(lambda number=number: list(runs.glob(f"{number}-*/checkpoints/step_*")))
        for number, job in enumerate(jobs):
            slurm.run(["scancel", "--signal=USR1", "--batch", job.id])
            job.until(lambda job=job: job.restarts() == 1)
            assert [other.restarts() for other in jobs] == [1, number]
        assert {slurm.show(job.id)["JobId"] == array for job in jobs} == {True, False}
    finally:
        slurm.run(["scancel", array])


def test_the_shell_of_salloc_is_on_one_node_of_its_job(slurm, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small(**SHORT))
    call = ["salloc", "--nodes=2", "srun", "--interactive", str(ROOT / "launch" / "node.sh"), recipe]
    done = slurm.run(call, cwd=tmp_path, env=environment(CIFAR_LAB_PYTHON=sys.executable), timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "this Slurm job has 2 nodes but this command runs on only one of them: put `srun" in done.stderr
    assert not (tmp_path / "runs").exists()
