"""A run of the schema's version before is still reported, measured, asked and exported; only going on is refused."""

import json
import shutil

import pytest
from support.saved_runs import picture, pictures_of, predictions, saved_run

from cifar_lab import train
from cifar_lab.commands import evaluate, export, predict, report
from cifar_lab.recipe.schema import SCHEMA_VERSION
from cifar_lab.rundir.directory import RunDir


@pytest.fixture
def older(tmp_path):
    """A completed run whose files are those of version 1, which did not write its number."""
    run = RunDir(shutil.copytree(saved_run("vit").path, tmp_path / "older"))
    env = run.env()
    assert env.pop("schema_version") == SCHEMA_VERSION
    run.write_env(env)
    return run


def test_it_is_measured_asked_exported_and_reported(older, tmp_path, capsys):
    assert evaluate.main([str(older.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == older.summary()["test"]["accuracy"]
    classes = json.loads((older.path / "model.json").read_text())["classes"]
    picture(pictures_of("vit").images[0]).save(tmp_path / "first.png")
    assert predict.main([str(older.path), str(tmp_path / "first.png"), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["pictures"]
    assert told["top"][0]["label"] == classes[predictions("vit")["predictions"][0]]
    assert export.main([str(older.path), "--format", "onnx", "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert report.main([str(older.path), "--terminal"]) == 0
    assert "own" in capsys.readouterr().out


def test_it_is_called_completed_but_not_continued(older, capsys):
    recipe, place = str(older.path / "recipe.yaml"), ["--run-dir", str(older.path)]
    assert train.main([recipe, *place]) == 0
    assert "is completed already" in capsys.readouterr().err
    older.write_status("stopped", 40, 80)
    before = {path: path.stat().st_mtime_ns for path in older.path.rglob("*")}
    assert train.main([recipe, *place]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "was trained by schema version 1, and this release computes by version 2" in told
    assert "--fresh" in told
    assert older.env()["revision"] in told
    assert {path: path.stat().st_mtime_ns for path in older.path.rglob("*")} == before
