"""slurm/train.sbatch on two nodes: one world, by either launcher, that computes what one process does."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import runs
from support.slurm_jobs import submit
from support.small import small

# Eight steps, and a global batch of four micro-batches in every layout.
RECIPE = small(train__epochs=None, train__steps=8, train__micro_batch=4, optim__warmup_epochs=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of one process, by step."""
    session = runs.train(RECIPE, tmp_path_factory.mktemp("alone"))
    return [line["loss"] for line in session.run_dir.metrics() if line["split"] == "train"]


@pytest.mark.parametrize(("processes", "strategy"), [(1, "ddp"), (2, "zero2")])
def test_two_nodes_are_one_world(slurm, tmp_path: Path, alone, processes: int, strategy: str) -> None:
    job = submit(slurm, tmp_path, RECIPE, "--strategy", strategy, "--nproc", str(processes), sbatch=("--nodes=2",))
    assert job.ended() == "COMPLETED", job.log()
    status, env = job.status(), job.run.env()
    assert status is not None
    assert (status.state, status.world_size) == ("completed", 2 * processes)
    assert (env["world_size"], env["strategy"], env["hosts"]) == (2 * processes, strategy, ["node1", "node2"])
    losses = [line["loss"] for line in job.run.metrics() if line["split"] == "train"]
    assert losses == pytest.approx(alone, rel=1e-5)
    assert job.restarts() == 0
