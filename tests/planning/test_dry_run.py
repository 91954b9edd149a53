from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifar_lab.planning import dry_run
from cifar_lab.recipe import experiment_id, load_recipe
from cifar_lab.rundir.directory import RunDir

RECIPE = {
    "name": "small",
    "data": {"name": "shapes", "args": {"num_train": 1200, "num_test": 300}, "val_size": 200},
    "model": {"name": "resnet", "args": {"depth": 18}},
    "optim": {"lr": 0.1},
    "train": {"epochs": 3, "global_batch": 48},
}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return path


def described(capsys: pytest.CaptureFixture[str], path: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    assert dry_run.show(str(path), overrides, as_json=True, **options) == 0
    return json.loads(capsys.readouterr().out)


def test_json_form(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    found = described(capsys, recipe_file, "optim.lr=5e-2", "seed=3", world_size=2, runs=str(runs))
    recipe = found.pop("recipe")
    identity = experiment_id(load_recipe(recipe_file, ["optim.lr=0.05"]))
    assert found == {
        "experiment_id": identity,
        "run_dir": str(runs / "small" / f"3-{identity}"),
        "state": None,
        "world_size": 2,
        "data": {
            "num_train": 1000,
            "num_val": 200,
            "num_test": 300,
            "num_classes": 10,
            "source_size": 32,
            "image_size": 32,
        },
        "data_place": None,  # they are made
        "batch": {
            "global_batch": 48,
            "micro_batch": 24,
            "accumulation_steps": 1,
            "steps_per_epoch": 20,
            "total_steps": 60,
        },
        # The published CIFAR ResNet-18; multiply-adds of its convolutions count twice.
        "model": {"num_parameters": 11_173_962, "flops_per_image": 1_110_845_440},
    }
    assert recipe["optim.lr"] == {"value": 0.05, "origin": "override"}
    assert recipe["optim.momentum"] == {"value": 0.9, "origin": "default"}
    assert recipe["train.global_batch"]["value"] == 48
    assert recipe["train.global_batch"]["origin"].endswith(f"small.yaml:{line_of(recipe_file, 'global_batch')}")
    assert not runs.exists()


def line_of(path: Path, word: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if word in line)


def test_text_form(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.show(str(recipe_file), ["train.micro_batch=8"], world_size=3) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "data.args.num_train 1200" in text
    assert "train.micro_batch 8 override" in text
    assert "global batch 48 = 3 processes x 2 accumulation steps x micro-batch 8" in text
    assert "length 60 steps, 20 per epoch" in text
    assert "model 11,173,962 parameters, 1.11 GFLOP per image (forward pass)" in text
    assert "images 1,000 train, 200 validation, 300 test; 32 x 32 pixels, 10 classes" in text


def test_limits_are_counted(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = described(capsys, recipe_file, "data.limit=480", "data.test_limit=100", "data.image_size=64")["data"]
    assert data == {
        "num_train": 480,
        "num_val": 200,
        "num_test": 100,
        "num_classes": 10,
        "source_size": 32,
        "image_size": 64,
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.limit=1001", "data.val_size=200 and data.limit=1001 are too many: there are 1200 training images"),
        ("data.val_size=1200", "data.val_size=1200 are too many"),
        ("data.test_limit=301", "data.test_limit=301 is more than the 300 test images"),
    ],
)
def test_limits_beyond_the_data(
    recipe_file: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run.show(str(recipe_file), [override]) == 2
    assert message in capsys.readouterr().err


def test_topology_that_does_not_divide_names_the_nearest(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.show(str(recipe_file), world_size=5) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "48 does not divide over 5 processes. It does over 3 or 4 or 6" in output.err


def test_state_and_place_of_an_existing_run(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(recipe_file)
    run = RunDir.locate(recipe, runs=str(tmp_path / "runs"))
    run.create(recipe)
    run.write_status("stopped", 12, 60)
    found = described(capsys, recipe_file, runs=str(tmp_path / "runs"))
    assert (found["run_dir"], found["state"]) == (str(run.path), "stopped")
    assert dry_run.show(str(recipe_file), ["optim.lr=0.2"], run_dir=str(run.path)) == 2
    assert "optim.lr" in capsys.readouterr().err


def test_what_only_the_data_tell_is_null(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cifar_lab.data.sources import shapes

    monkeypatch.setattr(shapes, "info", lambda **args: None)
    found = described(capsys, recipe_file, "optim.warmup_epochs=2", world_size=2)
    assert (found["data"], found["model"]) == (None, None)
    assert found["batch"]["micro_batch"] == 24
    assert found["batch"]["total_steps"] is None
    assert dry_run.show(str(recipe_file), world_size=5) == 2
    assert "does not divide over 5 processes" in capsys.readouterr().err
    assert dry_run.show(str(recipe_file)) == 0
    assert capsys.readouterr().out.count("not known before the data are read") == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [("model.name=resnett", "resnet"), ("optim.lrr=1", "optim.lr"), ("optim.lr=-1", "optim.lr")],
)
def test_bad_recipe(recipe_file: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.show(str(recipe_file), [override]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_model_that_cannot_be_built(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.show(str(recipe_file), ["model.name=vit", "model.args={patch_size: 5}"]) == 2
    output = capsys.readouterr()
    assert "patch_size" in output.err
    assert "Traceback" not in output.err


def test_second_answer_is_kept_and_needs_no_torch(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "cache"))
    first = described(capsys, recipe_file)["model"]
    (kept,) = (tmp_path / "cache" / "models.size").iterdir()
    kept.write_text("{")
    assert described(capsys, recipe_file)["model"] == first
    # Only what is kept can have said this; another question is not answered by it.
    kept.write_text(json.dumps({"num_parameters": 1, "flops_per_image": 2}))
    assert described(capsys, recipe_file)["model"] == {"num_parameters": 1, "flops_per_image": 2}
    assert described(capsys, recipe_file, "data.image_size=64")["model"]["num_parameters"] == first["num_parameters"]

    code = (
        "import sys; from cifar_lab.commands.dispatch import main\n"
        f"assert main(['train', {str(recipe_file)!r}, '--dry-run']) == 0\n"
        "assert not {'torch', 'timm', 'accelerate', 'datasets'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
