"""`evaluate --data` on copies of hub sets, folders and tables that have no training split; labels by name."""

import json
import shutil

import numpy as np
import pytest
from support.labelled_sets import kept, saved_copy
from support.saved_runs import pictures_of, predictions, saved_run

from cifar_lab.commands import evaluate


@pytest.fixture
def run(tmp_path):
    """A copy of a run, to be written to."""
    return shutil.copytree(saved_run("vit").path, tmp_path / "run")


@pytest.fixture
def measured(capsys):
    """What --json prints."""

    def ask(*arguments):
        assert evaluate.main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return ask


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
