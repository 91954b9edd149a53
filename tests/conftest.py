"""What every test stands on: nothing of the user's environment, no network, one cache for the session."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

_INHERITED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module, and so before torch or datasets, is imported."""
    for name in list(os.environ):
        if name in _INHERITED or name.startswith("ACCELERATE_"):
            del os.environ[name]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["WANDB_MODE"] = "offline"
    cache = tempfile.TemporaryDirectory(prefix="cifar_lab-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(cache.cleanup)
    os.environ["CIFAR_LAB_CACHE"] = cache.name


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The folder with the real CIFAR-10; skips where there is none."""
    root = os.environ.get("CIFAR_LAB_DATA")
    if not root:
        pytest.skip("CIFAR_LAB_DATA is not set: no real CIFAR-10")
    return Path(root).resolve()
