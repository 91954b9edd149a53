"""What submit.py says of the plan before anything is queued, and how far it comes where there is no torch."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from support.commands import PYTHON, ROOT, environment, write_recipe
from support.small import small
from support.submitting import submit

# As on a login node; also in the processes that this one starts.
WITHOUT_TORCH = """
import importlib.metadata, sys
sys.modules |= dict.fromkeys(["torch", "torchvision", "timm", "accelerate"])
known = importlib.metadata.version
def version(name):
    if name in sys.modules and sys.modules[name] is None:
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
"""
PLAN = ["--gpu=t4-16gb"]


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """Variables by which a python has no torch, and nothing that it has counted before."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_TORCH)
    return {"PYTHONPATH": f"{tmp_path}/site", "CIFAR_LAB_CACHE": f"{tmp_path}/cache"}


def cost(*arguments: str) -> tuple[float, str]:
    """GPU-hours of a call that queues nothing, and the line that says them."""
    done = submit("recipes/demo.yaml", *PLAN, *arguments, "--dry-run", timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.decode().splitlines() if line.startswith("cost: "))
    return float(re.findall(r"about (\S+) GPU-hours", line)[0]), line


def test_a_sweep_says_the_gpu_hours_of_all_its_runs() -> None:
    command = [PYTHON, "-m", "cifar_lab", "plan", "recipes/demo.yaml", *PLAN, "--json", "--gpus=1"]
    plan = json.loads(subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=True).stdout)
    hours = min(option["seconds"]["run"] for option in plan["plans"] if option["fits"]) / 3600
    one, line = cost()
    assert one == pytest.approx(hours, rel=0.01) and line.endswith(" GPU-hours, by the plan")
    six, line = cost("--sweep", "seed=0,1,2", "optim.lr=1e-3,1e-2")
    assert six == pytest.approx(6 * hours, rel=0.01) and line.endswith(" GPU-hours for 6 runs, by the plan")
    # Each member by its own length.
    both, _ = cost("--sweep", "train.steps=500,1500", "train.epochs=null", "optim.warmup_epochs=0")
    alone = [cost(f"train.steps={steps}", "train.epochs=null", "optim.warmup_epochs=0")[0] for steps in (500, 1500)]
    assert both == pytest.approx(sum(alone), rel=0.01) and alone[0] < alone[1]


def test_a_login_node_without_torch(bare: dict[str, str], tmp_path: Path) -> None:
    """The script is made and its recipe checked; one line says what is not known."""
    recipe = write_recipe(tmp_path, small())
    done = submit(recipe, "--gpu=t4-16gb", "--sweep", "seed=0,1", "--dry-run", **bare)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"#!/usr/bin/env bash\n")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("plan and cost: not known here, ") and "the Python package torch is not installed" in line
    done = submit(recipe, "optim.lrr=1", "--dry-run", **bare)
    assert done.returncode == 2 and b"did you mean" in done.stderr


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        (["train", "--dry-run"], 0, "model          not counted: torch is not installed here"),
        (["status"], 0, "new"),
        (["plan", "--gpu", "t4-16gb"], 1, "cifar-lab plan: the Python package torch is not installed: pip install"),
        (["train"], 1, "cifar-lab train: the Python package torch is not installed: pip install"),
    ],
)
def test_what_needs_torch_says_so(
    command: list[str], status: int, says: str, bare: dict[str, str], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, small())
    call = [PYTHON, "-m", "cifar_lab", command[0], recipe, *command[1:]]
    variables = environment() | bare | {"PYTHONPATH": f"{bare['PYTHONPATH']}:{ROOT}"}
    done = subprocess.run(call, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert says in done.stdout + done.stderr and "Traceback" not in done.stderr
