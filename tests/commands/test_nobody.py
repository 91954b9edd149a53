"""A user without a passwd entry and without HOME, as in containers, whose working folder may only be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, write_recipe
from support.small import small

RECIPE = small(train__epochs=None, train__steps=2, data__args__num_train=120, data__val_size=20, optim__warmup_epochs=0)


def as_nobody(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `cifar-lab` with these words."""
    who = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if subprocess.run([*who, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    command = [*who, sys.executable, "-m", "cifar_lab", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


def test_train_and_wandb(tmp_path: Path) -> None:
    words = ["train", write_recipe(tmp_path, RECIPE), "tracking.wandb_project=x", "--run-dir", "run"]
    done = as_nobody(*words, cwd=tmp_path, WANDB_MODE="offline")
    assert done.returncode == 0 and "W&B" not in done.stderr, done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_dry_run_where_nothing_can_be_written(tmp_path: Path) -> None:
    recipe, folder = write_recipe(tmp_path, RECIPE), tmp_path / "folder"
    folder.mkdir(mode=0o555)
    (tmp_path / "temporary").mkdir()
    done = as_nobody("train", recipe, "--dry-run", cwd=folder, TMPDIR=str(tmp_path / "temporary"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "parameters" in done.stdout
    assert not os.listdir(folder)
    done = as_nobody("train", recipe, cwd=folder)
    assert done.returncode == 2
    assert "cannot write the run directory" in done.stderr and len(done.stderr.splitlines()) == 1
