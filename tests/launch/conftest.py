"""A recipe, and what launch/node.sh would start."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import write_recipe
from support.node_sh import SHOW, executable, run
from support.small import small


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    folder = tmp_path / "a folder"
    folder.mkdir()
    return write_recipe(folder, small())


@pytest.fixture
def shown(tmp_path: Path, recipe: str) -> Callable[..., tuple[str, dict[str, Any]]]:
    """The line that node.sh prints, and the launch that it makes, with `gpus` GPUs or these tools on the machine."""
    python = executable(tmp_path / "python", SHOW.format(python=sys.executable))

    def call(
        *arguments: str, gpus: int = 0, tools: dict[str, str] | None = None, **variables: str
    ) -> tuple[str, dict[str, Any]]:
        listing = "".join(f"echo 'GPU {n}: A (UUID: x)'\n" for n in range(gpus)) or "exit 9\n"
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name, script in {"nvidia-smi": listing, "rocm-smi": "exit 9\n", **(tools or {})}.items():
            executable(folder / name, f"#!/bin/sh\n{script}")
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        done = run(recipe, *arguments, CIFAR_LAB_PYTHON=str(python), PATH=path, **variables)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        asked = Path(f"{python}.asked")
        assert asked.exists() == ("TORCH_COUNTS" in variables)  # it takes seconds
        asked.unlink(missing_ok=True)
        line, launch = done.stdout.splitlines()
        return line, json.loads(launch)

    return call
