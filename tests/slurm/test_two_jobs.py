"""Two jobs on the same nodes at the same time."""

from __future__ import annotations

import re
from pathlib import Path

from support.slurm_jobs import submit
from support.small import small


def test_two_jobs_on_the_same_nodes_do_not_collide(slurm, tmp_path: Path) -> None:
    jobs = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        recipe = small(seed=seed, train__epochs=None, train__steps=10**6)
        jobs.append(submit(slurm, folder, recipe, sbatch=("--nodes=2",)))
    for job in jobs:
        job.until(job.steps)
    for job in jobs:  # both train now
        (job.run.path / "STOP").touch()
    for job in jobs:
        assert job.ended() == "COMPLETED", job.log()
        assert job.restarts() == 0
        assert (job.run.env()["world_size"], job.run.env()["hosts"]) == (2, ["node1", "node2"])
        assert job.steps() == list(range(1, job.status().step + 1))
    ports = {re.search(r"node1.* talking to \S+:(\d+)", job.log())[1] for job in jobs}
    assert len(ports) == 2
