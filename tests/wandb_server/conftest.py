"""One openwandb for all tests here, and a clean environment for W&B."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.local_wandb import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if importlib.util.find_spec("openwandb") is None:
        missing = "the server is not installed: pip install -e '.[test-server]'"
        if "wandb" in os.environ.get("CIFAR_LAB_REQUIRE", ""):
            pytest.fail(missing)
        pytest.skip(missing)
    with serving(tmp_path_factory.mktemp("openwandb") / "data") as running:
        yield running


@pytest.fixture
def environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "cache"))
