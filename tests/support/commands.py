"""Real commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PYTHON = sys.executable
TRAIN = [PYTHON, "-m", "cifar_lab.train"]
ROOT = Path(__file__).resolve().parents[2]


def write_recipe(folder: Path, mapping: Mapping[str, Any]) -> str:
    """The path of a recipe file with this content."""
    path = folder / f"{mapping['name']}.yaml"
    path.write_text(yaml.safe_dump(dict(mapping), sort_keys=False), encoding="utf-8")
    return str(path)


def environment(**more: str) -> dict[str, str]:
    """That of this process, one thread each, without a GPU."""
    scripts = str(Path(PYTHON).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PATH": path, **more}


def completed(
    command: list[str], *, timeout: float = 300, cwd: Path = ROOT, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, from the checkout unless told; `more` joins its environment."""
    return subprocess.run(
        command, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False
    )
