"""The path of scripts/eva02_smoke with a small EVA-02: two processes, ZeRO-3 or FSDP2, stopped, resumed, evaluated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.study import recipe_path

from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import run

# What recipes/strong/eva02_large.yaml adds to the plain recipe.
STRONG = "model.args.drop_path=0.15 optim.layer_decay=0.85 train.grad_clip=5.0 train.ema_decay=0.9"
DATA = "data.name=shapes data.args.num_train=64 data.args.num_test=32"


@pytest.mark.launch
@pytest.mark.parametrize("strategy", ["zero3", pytest.param("fsdp2", marks=pytest.mark.figures)])
def test_the_smoke_run_is_that_of_one_process(strategy: str, repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repo / "scripts" / "eva02_smoke"), "--small", "--dir", str(tmp_path)]
    command += ["--strategy", strategy, *DATA.split(), *STRONG.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["claims"]) == 7 and all(found["claims"].values())
    assert (found["strategy"], found["world_size"]) == (strategy, 2)
    assert found["num_parameters"] > 10e6
    peaks = found["peak_memory_bytes"]
    assert [len(launch) for launch in peaks] == [2, 2]
    assert max(peaks[-1]) == pytest.approx(found["peak_memory_of_summary"], rel=0.02)

    alone = run(recipe_path("eva02_large"), overrides=found["overrides"], run_dir=str(tmp_path / "alone"))
    assert alone.completed
    reference = [line for line in alone.run_dir.metrics() if line["split"] == "train"]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in found["steps"]] == pytest.approx([line[key] for line in reference], rel=1e-5)
    summary = alone.run_dir.summary()
    assert summary is not None and summary["strategy"] == "single"
    assert found["test"]["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-5)
    assert found["test"]["accuracy"] == summary["test"]["accuracy"]

    # What has completed is not trained again.
    trained = RunDir(tmp_path / "run").status()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0 and "launch 1" not in again.stdout.split("parameters")[0]
    assert json.loads(again.stdout.splitlines()[-1]) == found and RunDir(tmp_path / "run").status() == trained
