"""One job that meets, one after another, all that ends jobs on a cluster, and comes back from each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.slurm_cluster import Cluster
from support.slurm_jobs import Job, submit
from support.small import small

STEPS = 150
RECIPE = small(
    name="survivor",
    data__args={"num_train": 1000, "num_test": 60, "image_size": 16},
    train__epochs=None,
    train__steps=STEPS,
    train__global_batch=64,
    train__micro_batch=1,  # slow steps, so that each event finds the run on its way
    train__hang_timeout=6,
    eval__every_epochs=5,
    checkpoint__every_steps=5,
    tracking__wandb_project="survivors",
)


def preempt(job: Job) -> None:
    """A job of a partition with a higher priority wants both nodes."""
    other = job.slurm.sbatch("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    job.slurm.until(other, "COMPLETED")


def signal_before_limit(job: Job) -> None:
    """What Slurm sends by itself up to a minute too early."""
    job.slurm.run(["scancel", "--signal=USR1", "--batch", job.id], check=True)


def requeue(job: Job) -> None:
    """By its user or an administrator."""
    job.slurm.control("requeue", job.id)


def lose_node(job: Job) -> None:
    job.slurm.control("update", "nodename=node2", "state=down", "reason=test")
    job.until(lambda: job.slurm.state(job.id) == "PENDING")
    _resume(job.slurm)


def _resume(slurm: Cluster) -> None:
    slurm.run(["scontrol", "update", "nodename=node2", "state=resume"])  # refused if it came back by itself


def cut_link(job: Job) -> None:
    """Until the run says that it is interrupted, and who is at fault."""
    job.slurm.set_link("node2", up=False)
    try:
        job.until(lambda: (status := job.status()) and status.state == "interrupted", seconds=180)
    finally:
        job.slurm.set_link("node2", up=True)


EVENTS = (preempt, signal_before_limit, requeue, lose_node, cut_link)


@pytest.fixture
def whole(slurm: Cluster):
    """The cluster, which is whole again afterwards."""
    yield slurm
    slurm.set_link("node2", up=True)
    _resume(slurm)


def test_a_job_survives_what_a_cluster_does_to_it(whole: Cluster, tmp_path: Path) -> None:
    # --fresh is for the first start: what comes back must not begin anew.
    job = submit(whole, tmp_path, RECIPE, "--fresh", "--accept-micro-batch", sbatch=("--nodes=2", "--partition=low"))
    number = 0
    for event in EVENTS:
        number = _on_its_way(job, event, after=number)
        event(job)
    assert job.ended() == "COMPLETED", job.log()

    reached = _starts(job)
    assert job.restarts() >= len(EVENTS)
    assert sorted(set(reached)) == reached, "an attempt without a newer checkpoint than the one before"
    for step in reached[1:]:
        assert f", from step {step}\n" in job.log(), "an attempt that did not begin at the last checkpoint"

    assert any(f"job {job.id}: the time limit is near" in record["text"] for record in job.decisions())

    status = job.status()
    assert (status.state, status.step, status.world_size) == ("completed", STEPS, 2)
    assert job.steps() == list(range(1, STEPS + 1)), "a step is missing or there twice"
    validated = [line["step"] for line in job.run.metrics() if line["split"] == "val"]
    assert validated == sorted(set(validated)) and validated[-1] == STEPS
    assert [path.name for path in job.run.path.parent.iterdir()] == [job.run.path.name]

    identifier = json.loads((job.run.path / "wandb.json").read_text())["id"]
    offline = [path.name for path in (job.run.path / "wandb").glob("offline-run-*")]
    assert len(offline) > 1 and {name.rpartition("-")[2] for name in offline} == {identifier}


def _starts(job: Job) -> list[int]:
    """The step at which each attempt began."""
    return [record["checkpoint_step"] or 0 for record in job.decisions() if record["when"] == "start"]


def _on_its_way(job: Job, event: Callable[[Job], None], after: int) -> int:
    """Wait until an attempt past number `after` has saved; returns its number."""
    begun = time.monotonic()

    def saved() -> int:
        status = job.status()
        later = status is not None and status.state == "running" and status.attempt > after
        return status.attempt if later and job.checkpoint() > _starts(job)[-1] else 0

    number = job.until(saved, seconds=300)
    print(f"{event.__name__} at step {job.checkpoint()} of attempt {number}, after {time.monotonic() - begun:.0f} s")
    return number
