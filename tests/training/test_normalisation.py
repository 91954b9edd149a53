"""By which mean and standard deviation pictures are normalised, from the recipe or initial weights to the export."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import runs
from support.saved_runs import RECIPES, saved_run
from support.small import small

from cifar_lab import train
from cifar_lab.commands import evaluate, export, predict, status
from cifar_lab.data.images import load_images
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.raw import DataError
from cifar_lab.data.splits import divide
from cifar_lab.data.statistics import mean_std
from cifar_lab.models.factory import ModelError
from cifar_lab.recipe import RecipeError, parse_recipe
from cifar_lab.recipe.identity import experiment_id
from cifar_lab.train import run

Numbers = tuple[tuple[float, ...], tuple[float, ...]]
HALF = ((0.5,) * 3, (0.25,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def timm(weights: Path | None, **overrides: Any) -> dict[str, Any]:
    """A recipe for the architecture of the saved run `net`."""
    model = {"name": "timm_zoo", "args": {"arch": "test_efficientnet"}, "weights": weights and str(weights)}
    return small(model=model, **overrides)


def told(folder: Path) -> Numbers:
    """What model.json says."""
    fields = json.loads((folder / "model.json").read_text())
    return tuple(fields["mean"]), tuple(fields["std"])


def prepared(mapping: dict[str, Any]) -> Numbers:
    """What a start of the recipe normalises by."""
    recipe = parse_recipe(mapping)
    data = recipe.data
    splits = divide(load_images(data.name, data.args, root=None, max_gib=1), data)
    found = Preparation.from_recipe(recipe, splits.train, splits.sums)
    return found.mean, found.std


def test_one_value_stands_for_all_channels(tmp_path, capsys):
    one, three = (small(data__mean=[0.5] * n, data__std=[0.25] * n, train__epochs=0.5) for n in (1, 3))
    assert experiment_id(parse_recipe(one)) == experiment_id(parse_recipe(three))
    finished = run(one, run_dir=str(tmp_path / "run")).run_dir
    assert told(finished.path) == HALF
    capsys.readouterr()
    assert evaluate.main([str(finished.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == finished.summary()["test"]["loss"]
    Image.new("RGB", (16, 16), (200, 10, 90)).save(tmp_path / "a.png")
    assert predict.main([str(finished.path), str(tmp_path / "a.png")]) == 0
    assert export.main([str(finished.path), "--format", "onnx", "--out", str(tmp_path / "onnx")]) == 0
    # As earlier versions wrote it.
    fields = json.loads((finished.path / "model.json").read_text()) | {"mean": [0.5], "std": [0.25]}
    (finished.path / "model.json").write_text(json.dumps(fields))
    capsys.readouterr()
    assert evaluate.main([str(finished.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == finished.summary()["test"]["loss"]


def test_the_data_s_are_those_of_the_pictures_that_are_trained_on():
    for changes in ({}, {"data__limit": 50}, {"data__val_size": 0}):
        mapping = small(**changes)
        data = parse_recipe(mapping).data
        loaded = load_images(data.name, data.args, root=None, max_gib=1)
        pixels = loaded.train.images[divide(loaded, data).train.ids].double() / 255
        mean, std = prepared(mapping)
        torch.testing.assert_close(torch.tensor(mean, dtype=torch.double), pixels.mean((0, 2, 3)))
        torch.testing.assert_close(torch.tensor(std, dtype=torch.double), pixels.std((0, 2, 3), correction=0))
        assert (mean_std(loaded.train, loaded.sums) == (mean, std)) == (data.val_size == 0)
    assert told(saved_run("vit").path) == prepared(RECIPES["vit"])


def test_weights_of_a_run_bring_its_own(tmp_path, caplog):
    source, caplog.handler.level = saved_run("net").path, logging.INFO
    own = told(source)
    assert own != IMAGENET and own != prepared(timm(None, data__limit=100))
    with caplog.at_level(logging.INFO, "cifar_lab"):
        assert prepared(timm(source, data__limit=100)) == own
    assert f"of {source}/model.json (data.mean and data.std give others)" in caplog.text
    assert prepared(timm(source / "model.safetensors")) == own
    assert prepared(timm(source, data__mean=[0.5], data__std=[0.25])) == HALF
    alone = tmp_path / "alone.safetensors"
    shutil.copy(source / "model.safetensors", alone)
    with caplog.at_level(logging.INFO, "cifar_lab"):
        assert prepared(timm(alone)) == IMAGENET
    assert "of the weights published of test_efficientnet, which were trained at 160 px (data.mean" in caplog.text
    shutil.copy(source / "model.json", tmp_path)
    assert prepared(timm(alone)) == own
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model.json is damaged: .*; correct or remove it, or give data.mean"):
        prepared(timm(alone))


def test_weights_of_an_export_bring_its_own(tmp_path, caplog):
    source, caplog.handler.level = saved_run("net").path, logging.INFO
    assert export.main([str(source), "--format", "timm", "--out", str(tmp_path / "timm")]) == 0
    for weights in (tmp_path / "timm", tmp_path / "timm" / "model.safetensors"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "cifar_lab"):
            assert prepared(timm(weights)) == told(source) != IMAGENET
        assert f"of {tmp_path}/timm/config.json (data.mean" in caplog.text
    for text in ("{}", "[]", "{", '{"pretrained_cfg": {"mean": 1, "std": 2}}'):
        (tmp_path / "timm" / "config.json").write_text(text)
        assert prepared(timm(weights)) == IMAGENET
        assert f"{tmp_path}/timm/config.json tells no normalisation" in caplog.text
        caplog.clear()


def test_so_do_those_of_a_family_of_ours(caplog):
    source = saved_run("vit").path
    model = {"name": "vit", "args": small()["model"]["args"], "weights": str(source)}
    assert prepared(small(model=model, data__limit=100)) == told(source) != prepared(small(data__limit=100))


def test_a_resumed_run_keeps_what_it_began_with(tmp_path, monkeypatch):
    shutil.copytree(saved_run("net").path, tmp_path / "source")
    recipe = timm(tmp_path / "source", train__epochs=0.5, data__limit=160)
    whole = runs.train(recipe, tmp_path / "whole")
    runs.train(recipe, tmp_path / "run", 2, monkeypatch)
    fields = json.loads((tmp_path / "source" / "model.json").read_text())
    (tmp_path / "source" / "model.json").write_text(json.dumps(fields | {"mean": [0.1, 0.2, 0.3]}))
    resumed = runs.train(recipe, tmp_path / "run")
    assert (resumed.preparation.mean, resumed.preparation.std) == told(saved_run("net").path)
    assert runs.lines(resumed) == runs.lines(whole)


def test_a_constant_channel_needs_a_mean_and_a_std(tmp_path, monkeypatch):
    data = {"name": "hub", "args": {"id": str(tmp_path / "pictures")}, "val_size": 0}
    for split in ("train", "test"):
        for number in range(8):
            folder = tmp_path / "pictures" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (30 * number, 0, 255 - number)).save(folder / f"{number}.png")
    with pytest.raises(DataError, match=r"channel 1 has one value"):
        prepared(small(data=data))
    assert prepared(small(data=data | {"mean": [0.5], "std": [0.25]})) == HALF


def test_a_run_goes_on_without_the_weights_that_it_began_with(tmp_path, monkeypatch, capsys):
    shutil.copytree(saved_run("net").path, tmp_path / "source")
    recipe = timm(tmp_path / "source", train__epochs=0.5, data__limit=160)
    stopped = runs.train(recipe, tmp_path / "run", 2, monkeypatch)
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(RecipeError, match=r"model.weights: .*source does not exist"):
        run(recipe, run_dir=str(tmp_path / "other"))
    asked = [str(stopped.run_dir.path / "recipe.yaml"), "--run-dir", str(stopped.run_dir.path), "--decide", "start"]
    assert status.main(asked) == 0, capsys.readouterr()
    assert train.main([*asked[:3], "--dry-run"]) == 0
    finished = run(recipe, run_dir=str(tmp_path / "run"))
    assert finished.completed
    assert told(tmp_path / "run") == told(saved_run("net").path)
