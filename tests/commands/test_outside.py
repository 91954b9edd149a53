"""A source and a model in files of one's own, from a launch of two processes to an exported model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import PYTHON, ROOT, TRAIN, completed

import cifar_lab
from cifar_lab.commands import evaluate, export, predict
from cifar_lab.recipe import load_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import default_path
from cifar_lab.train import main

TWO = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cifar_lab"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The files of docs/extending.md."""
    text = (ROOT / "docs" / "extending.md").read_text()
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, kind in (("model.py", "python"), ("source.py", "python"), ("recipe.yaml", "yaml")):
        (code,) = re.findall(rf"`mine/{re.escape(name)}`:\n\n```{kind}\n(.*?)```", text, re.DOTALL)
        assert len([line for line in code.splitlines() if line]) <= 15
        (folder / name).write_text(code)
    return folder


def remove(folder: Path) -> None:
    """What is there instead would break whatever reads it."""
    for file in folder.glob("*.py"):
        file.write_text("1 / 0\n")


@pytest.mark.launch
def test_two_processes_train_resume_evaluate_predict_and_export(mine: Path, tmp_path: Path) -> None:
    recipe, runs = str(mine / "recipe.yaml"), str(tmp_path / "runs")
    run = default_path(load_recipe(recipe), Path(runs), fresh=False)
    run.mkdir(parents=True)
    (run / "STOP").touch()  # so that it stops at its first vote
    command = [*TWO, "train", recipe, "--runs", runs, "log.every_steps=1"]
    stopped = completed([*command, "checkpoint.every_steps=1"])
    assert RunDir(run).status().state == "stopped", stopped.stderr
    assert (run / "model.py").read_text() == (mine / "model.py").read_text()
    remove(mine)
    again = completed([*TWO, "train", str(run), "--runs", runs])
    assert again.returncode == 0 and ", from step " in again.stderr, again.stderr
    summary = RunDir(run).summary()
    assert summary["world_size"] == 2
    measured = completed([*TWO, "evaluate", str(run), "--json"])
    found = json.loads(measured.stdout)
    assert (found["world_size"], found["recorded"], found["same_data"]) == (2, summary["test"], True)
    assert found["accuracy"] == summary["test"]["accuracy"] > 0.9
    picture = tmp_path / "bright.png"
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(picture)
    seen = completed([PYTHON, "-m", "cifar_lab", "predict", str(run), str(picture), "--json"])
    assert json.loads(seen.stdout)["pictures"][0]["top"][0]["label"] == "bright"
    made = completed([PYTHON, "-m", "cifar_lab", "export", str(run), "--format", "onnx"])
    assert made.returncode == 0, made.stderr
    card = (run / "export" / "onnx" / "README.md").read_text()
    assert "  name: model.py#" in card and str(tmp_path) not in card


def test_a_run_is_whole_without_the_originals(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process too nothing is left of the first import: it is asked in others above."""
    assert completed([*TRAIN, str(mine / "recipe.yaml"), "--runs", str(tmp_path / "runs")]).returncode == 0
    (run,) = (tmp_path / "runs" / "mine").iterdir()
    first = load_recipe(mine / "recipe.yaml")
    remove(mine)
    assert evaluate.main([str(run)]) == 0
    assert "equal to the run's summary.json" in capsys.readouterr().out
    network, _ = cifar_lab.load_model(run)
    assert type(network.module).__module__ == "torch.nn.modules.container"
    assert export.main([str(run), "--format", "timm"]) == 2
    said = capsys.readouterr().err
    assert f"is a {first.model.name}, which timm does not know: use --format onnx" in said
    # Passed on: with its file it works, without it the message says what to bring.
    passed = tmp_path / "passed"
    passed.mkdir()
    for name in ("model.safetensors", "model.json"):
        (passed / name).write_bytes((run / name).read_bytes())
    picture = tmp_path / "dark.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    call = [PYTHON, "-m", "cifar_lab", "predict", str(passed / "model.safetensors"), str(picture)]
    lost = completed(call)
    assert lost.returncode == 2 and f"{passed / 'model.py'} was changed or removed" in lost.stderr, lost.stderr
    (passed / "model.py").write_bytes((run / "model.py").read_bytes())
    assert "dark" in completed(call).stdout.partition(",")[0]
    # A changed copy is no longer what was trained.
    with (run / "model.py").open("a") as file:
        file.write("# changed\n")
    assert predict.main([str(run), str(picture)]) == 2
    assert "is another file than model.py#" in capsys.readouterr().err


def test_a_changed_file_is_another_run(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [str(mine / "recipe.yaml"), "--runs", str(tmp_path / "runs"), "train.epochs=1"]
    assert main(call) == 0
    (run,) = (tmp_path / "runs" / "mine").iterdir()
    with (mine / "source.py").open("a") as file:
        file.write("\n")
    assert main([*call, "--run-dir", str(run)]) == 2
    said = capsys.readouterr().err
    assert f"{run} holds another experiment" in said and "data.name: '#" in said
    assert main(call) == 0
    assert len(list((tmp_path / "runs" / "mine").iterdir())) == 2


def test_what_cannot_be_imported_leaves_no_directory(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "model.py").write_text("import no_such_package\n\n\ndef build(num_classes, image_size, *, width=1): ...\n")
    assert main([str(mine / "recipe.yaml"), "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert f"{mine / 'model.py'}:1: ModuleNotFoundError: No module named 'no_such_package'; correct that file" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_counts_a_model_of_one_s_own(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [str(mine / "recipe.yaml"), "--dry-run", "--json", "--runs", str(tmp_path), "data.name=shapes"]
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out)["model"]["num_parameters"] == 1530
