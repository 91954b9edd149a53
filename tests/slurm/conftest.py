"""The cluster that the tests here share; every test here is marked `slurm` and `launch`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slurm_cluster import Cluster, ClusterError, cannot_start, cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and start with them: they are the longest, and mostly wait."""
    here = Path(__file__).parent
    items.sort(key=lambda item: here not in item.path.parents)
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.launch)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two idle nodes; skips where none can be started, or fails where $CIFAR_LAB_REQUIRE lists `slurm`."""
    required = "slurm" in os.environ.get("CIFAR_LAB_REQUIRE", "").split(",")
    problem = cannot_start()
    if problem and not required:
        pytest.skip(problem)
    try:
        with cluster(tmp_path_factory.mktemp("slurm")) as running:
            yield running
    except ClusterError as error:
        pytest.fail(f"the Slurm cluster did not start: {error}")
