"""`evaluate --data` on copies of hub sets, folders and tables that have no training split; labels by name."""

import json

import numpy as np
import pytest
from PIL import Image
from support.labelled_sets import kept, own_pictures, saved_copy
from support.saved_runs import pictures_of, predictions
from support.small import small

from cifar_lab.commands import evaluate, report
from cifar_lab.train import run as train


def test_a_hub_copy_with_labels_in_another_order(run, measured, tmp_path):
    names = list(pictures_of("vit").classes)
    found = measured(run, "--data", saved_copy(tmp_path / "copy", names[::-1]))
    arrays = predictions("vit")
    right = arrays["labels"][:40] == arrays["predictions"][:40]
    assert (found["count"], found["accuracy"]) == (40, right.mean())
    assert [one["name"] for one in found["classes"]] == names
    (one,) = kept(run)
    assert one["set"] == "copy, test split" and one["wrong"] == np.flatnonzero(~right).tolist()


def test_a_class_that_the_run_does_not_know_and_one_that_is_missing(run, measured, capsys, caplog, tmp_path):
    names = list(pictures_of("vit").classes)
    saved_copy(tmp_path / "fewer", names, num=9)
    assert measured(run, "--data", tmp_path / "fewer")["count"] == 9
    assert f"has no pictures of {names[9]}" in caplog.text
    datasets = pytest.importorskip("datasets")
    renamed = datasets.load_from_disk(str(saved_copy(tmp_path / "renamed", names)))
    names[2:4] = ["zebra", "yak"]
    renamed.cast_column("label", datasets.ClassLabel(names=names)).save_to_disk(str(tmp_path / "other"))
    capsys.readouterr()  # the progress of `datasets`
    assert evaluate.main([str(run), "--data", str(tmp_path / "other")]) == 1
    said = capsys.readouterr().err
    assert "2 classes that the model does not know (zebra, yak)" in said and said.count("\n") == 1


def test_another_split_of_a_copy_is_named(run, measured, capsys, tmp_path):
    names = list(pictures_of("vit").classes)
    saved_copy(tmp_path / "copy", names, split="val")
    assert evaluate.main([str(run), "--data", str(tmp_path / "copy")]) == 1
    assert "has no split 'train'; data.args.train_split can be: val" in capsys.readouterr().err
    assert measured(run, "--data", tmp_path / "copy", "--split", "val")["count"] == 40
    assert measured(run, "--data", tmp_path / "copy", "--split", "val", "data.test_limit=20")["count"] == 20
    assert [one["count"] for one in kept(run)] == [20]
    assert measured(run, "--data", tmp_path / "copy", "data.args.train_split=val")["set"] == "copy, val split"
    assert [one["count"] for one in kept(run)] == [40]


def class_folders(folder, num=40):
    """The same pictures as CLASS/NUMBER.png."""
    pixels, labels = own_pictures()
    for number, (picture, label) in enumerate(zip(pixels[:num], labels[:num], strict=True)):
        path = folder / pictures_of("vit").classes[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


@pytest.mark.parametrize("place", [".", "test", "val"])
def test_a_folder_of_pictures_with_and_without_splits(run, measured, tmp_path, place):
    class_folders(tmp_path / "mine" / place)
    asked = ["--split", "val"] if place == "val" else []
    found = measured(run, "--data", tmp_path / "mine", *asked)
    arrays = predictions("vit")
    right = arrays["labels"][:40] == arrays["predictions"][:40]
    assert (found["count"], found["accuracy"]) == (40, right.mean())
    assert [one["set"] for one in kept(run)] == ["mine" if place == "." else f"mine, {place} split"]


def test_one_split_of_a_folder_by_its_path(run, measured, tmp_path):
    class_folders(tmp_path / "mine" / "a", 20)
    class_folders(tmp_path / "mine" / "test", 40)
    assert measured(run, "--data", tmp_path / "mine" / "a")["count"] == 20
    assert measured(run, "--data", tmp_path / "mine")["count"] == 40
    assert sorted(one["set"] for one in kept(run)) == ["a", "mine, test split"]


def test_pictures_of_another_size_are_brought_to_the_run_s(run, measured, tmp_path):
    """Of twice the side, each pixel four times: shrunk to what they were, as near as a filter comes."""
    class_folders(tmp_path / "mine")
    for file in (tmp_path / "mine").rglob("*.png"):
        Image.open(file).resize((32, 32), Image.Resampling.NEAREST).save(file)
    found, own = measured(run, "--data", tmp_path / "mine"), measured(run, "data.test_limit=40")
    assert found["loss"] == pytest.approx(own["loss"], abs=0.2)


def test_pictures_that_are_no_squares_are_fitted_as_the_run_s_were(run, measured, tmp_path):
    """Of a run with `fit: pad`, pictures with what padding adds cut off are what they were."""
    description = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(description | {"fit": "pad"}))
    whole, cut = class_folders(tmp_path / "whole"), class_folders(tmp_path / "cut")
    for file in whole.rglob("*.png"):
        pixels = np.asarray(Image.open(file)).copy()
        pixels[:4], pixels[12:] = 0, 0
        Image.fromarray(pixels).save(file)
        Image.fromarray(pixels[4:12]).save(cut / file.relative_to(whole))
    assert measured(run, "--data", cut)["loss"] == measured(run, "--data", whole)["loss"]


def test_a_table_of_paths_and_labels(run, measured, tmp_path):
    class_folders(tmp_path / "mine")
    files = sorted((tmp_path / "mine").rglob("*.png"), key=lambda file: file.name)
    lines = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in files]
    (tmp_path / "mine.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
    found = measured(run, "--data", tmp_path / "mine.csv")
    arrays = predictions("vit")
    assert found["confusion"] == measured(run, "--data", tmp_path / "mine")["confusion"]
    wrong = np.flatnonzero(arrays["labels"][:40] != arrays["predictions"][:40]).tolist()
    assert [one["wrong"] for one in kept(run) if one["set"] == "mine.csv"] == [wrong]


def test_a_place_that_is_not_there_and_a_folder_without_pictures_are_one_message(run, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    missing = tmp_path / "typo"
    expected = {
        str(tmp_path / "empty"): "holds no data set",
        str(missing): f"--data {missing} does not exist: name a file, a folder, or a hub set as OWNER/NAME",
        "shape": "did you mean `shapes`",
    }
    for place, message in expected.items():
        assert evaluate.main([str(run), "--data", place]) in (1, 2)
        said = capsys.readouterr()
        assert message in said.err and "Traceback" not in said.err and said.out == ""
    assert not (run / "evaluations").exists()


def test_a_run_without_a_test_split(measured, capsys, tmp_path):
    """It has no test error, but other sets can be measured, and the report shows them."""
    done = train(small(data__test_size=0, train__epochs=0.5), run_dir=str(tmp_path / "run")).run_dir
    class_folders(tmp_path / "mine")
    assert measured(done.path, "--data", tmp_path / "mine")["count"] == 40
    assert report.main([str(done.path), "--terminal"]) == 0
    said = capsys.readouterr().out
    assert "mine" in said and "its test split" not in said and "95 % interval" in said
