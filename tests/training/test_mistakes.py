"""Mistakes of a completed run: a picture of the surest, a list of all with ids, and with files where there are some."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small import small, with_batch_norm

from cifar_lab.data.images import load_images
from cifar_lab.train import run
from cifar_lab.training.evaluation import Predictions
from cifar_lab.training.sheets import draw_mistakes

RECIPES = {"vit": small(train__ema_decay=0.9, optim__lr=3e-3), "norm": with_batch_norm(train__epochs=2)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A completed run of each recipe, never to be written to."""
    folder = tmp_path_factory.mktemp("mistakes")
    return {name: run(recipe, run_dir=str(folder / name)).run_dir for name, recipe in RECIPES.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_the_mistakes_are_a_picture(runs, name):
    with Image.open(runs[name].path / "mistakes.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size[0] == 968
        stored = np.load(runs[name].path / "predictions.npz")
        wrong = int((stored["predictions"] != stored["labels"]).sum())
        assert picture.size[1] == max(1, -(-min(wrong, 64) // 8)) * 156 + 8
        assert len(set(picture.tobytes())) > 20


def test_the_most_confident_mistake_comes_first(tmp_path):
    test = load_images("shapes", {"num_train": 400, "num_test": 60, "image_size": 16}, root=None, max_gib=1).test
    confidences = torch.linspace(0.2, 0.8, 60)
    wrong = torch.zeros(60, dtype=torch.bool)
    wrong[[3, 40, 17]] = True
    guesses = torch.where(wrong, (test.labels + 1) % 10, test.labels)
    draw_mistakes(tmp_path / "m.png", test, Predictions(test.ids, test.labels, guesses, confidences))
    with Image.open(tmp_path / "m.png") as sheet:
        for cell, sample in enumerate([40, 17, 3]):
            tile = Image.fromarray(test.images[sample].permute(1, 2, 0).numpy())
            expected = tile.resize((112, 112), Image.Resampling.BICUBIC)
            x = 8 + cell * 120
            assert sheet.crop((x, 8, x + 112, 120)).tobytes() == expected.tobytes()
        assert set(sheet.crop((8 + 3 * 120, 8, 968, 120)).tobytes()) == {255}


@pytest.mark.parametrize("name", RECIPES)
def test_the_mistakes_are_a_list_of_all_the_surest_first(runs, name):
    with open(runs[name].path / "mistakes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    stored = np.load(runs[name].path / "predictions.npz")
    assert {int(row["id"]) for row in rows} == set(stored["ids"][stored["labels"] != stored["predictions"]].tolist())
    assert len(rows) > 5
    classes = json.loads((runs[name].path / "model.json").read_text())["classes"]
    for row in rows:
        place = int(row["id"])  # the whole split, in the order of its ids
        assert (row["class"], row["predicted"]) == tuple(classes[stored[k][place]] for k in ("labels", "predictions"))
        assert float(row["confidence"]) == stored["confidences"][place]
        assert row["file"] == ""  # the pictures are drawn
    sure = [float(row["confidence"]) for row in rows]
    assert sure == sorted(sure, reverse=True)


def test_mistakes_of_a_folder_of_pictures_name_its_files(tmp_path):
    shapes = load_images("shapes", {"num_train": 40, "num_test": 30, "image_size": 16}, root=None, max_gib=1)
    for split, pictures in (("train", shapes.train), ("test", shapes.test)):
        for number, (picture, label) in enumerate(zip(pictures.images, pictures.labels, strict=True)):
            folder = tmp_path / "data" / split / pictures.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{1000 - number}.png")
    args = {"id": str(tmp_path / "data")}
    recipe = small(data__name="hub", data__args=args, data__val_size=20, train__epochs=1, train__global_batch=4)
    for start in ("decoded", "from the cache"):
        path = run(recipe, run_dir=str(tmp_path / start)).run_dir.path
        read = load_images("hub", args, root=None, max_gib=1).test
        with open(path / "mistakes.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 5
        for row in rows:
            assert Path(row["file"]).parent == tmp_path / "data" / "test" / row["class"]
            with Image.open(row["file"]) as picture:
                assert np.array_equal(np.asarray(picture), read.images[int(row["id"])].permute(1, 2, 0).numpy())


def test_no_mistakes_are_said(tmp_path):
    test = load_images("shapes", {"num_train": 400, "num_test": 60, "image_size": 16}, root=None, max_gib=1).test
    draw_mistakes(tmp_path / "m.png", test, Predictions(test.ids, test.labels, test.labels, torch.ones(60)))
    with Image.open(tmp_path / "m.png") as sheet:
        assert len(set(sheet.tobytes())) > 1
