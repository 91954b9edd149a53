"""What every test stands on: nothing of the user's environment, no network, one cache for the session."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_INHERITED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# With these torch finds no NVIDIA or AMD and no Intel GPU, in this process and in those that it starts.
_HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "ONEAPI_DEVICE_SELECTOR": "*:cpu"}
# Metal cannot be hidden from torch; this keeps the trainer from it.
if sys.platform == "darwin":
    _HIDDEN["ACCELERATE_USE_CPU"] = "true"
# What those variables were, so that the processes of xdist know it too, which inherit from the first one.
_FOUND = "CIFAR_LAB_TESTS_FOUND"


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module, and so before torch or datasets, is imported.

    What is written for CPUs sees no accelerator; tests marked `gpu` start processes with `gpu_environment`.
    """
    os.environ.setdefault(_FOUND, json.dumps({name: os.environ.get(name) for name in _HIDDEN}))
    for name in list(os.environ):
        if name in _INHERITED or name.startswith("ACCELERATE_"):
            del os.environ[name]
    os.environ |= _HIDDEN
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the programs that tests start would inherit from nohup
    if sys.platform == "darwin":
        import torch

        torch.backends.mps.is_available = torch.accelerator.is_available = lambda: False
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


@pytest.fixture(scope="session")
def gpu_environment() -> dict[str, str]:
    """The environment of a process that sees this machine's accelerators; skips where torch finds none."""
    found = json.loads(os.environ[_FOUND])
    environment = {name: value for name, value in os.environ.items() if name not in {*found, "OMP_NUM_THREADS"}}
    environment |= {name: value for name, value in found.items() if value is not None}
    question = "import torch; print(torch.accelerator.is_available())"
    asked = subprocess.run(
        [sys.executable, "-c", question], env=environment, capture_output=True, text=True, check=True
    )
    if asked.stdout.strip() != "True":
        pytest.skip("torch finds no accelerator on this machine")
    return environment
