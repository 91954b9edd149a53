"""Fixtures of the hostile tests: one server a session, and a folder with a completed run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.fork_server import ForkServer
from support.small import small


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that any user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def server(place) -> Iterator[ForkServer]:
    (place / "cache").mkdir()
    os.chmod(place / "cache", 0o777)
    server = ForkServer({**os.environ, "CIFAR_LAB_CACHE": str(place / "cache"), "HOME": str(place / "cache")})
    yield server
    server.close()


@pytest.fixture(scope="module")
def good(place, server) -> Path:
    """A folder with a completed run, its recipe and a picture, as a call finds it."""
    folder = place / "good"
    folder.mkdir()
    recipe = small(train__epochs=None, train__steps=2, data__args__num_train=120, data__val_size=20)
    (folder / "good.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "file").write_text("")
    Image.linear_gradient("L").save(folder / "picture.png")
    done = server(["train", "good.yaml", "--run-dir", "run"], cwd=folder)
    assert done.status == 0, done.err
    return folder
