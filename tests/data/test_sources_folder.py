"""Folders of pictures as people have them: with and without splits, nested, linked, and with what else lies there."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar_lab.data.images import Splits, load_images
from cifar_lab.data.raw import DataError
from cifar_lab.data.sources import folder


def write(root: Path, *names: str) -> str:
    """Pictures whose grey is their place among `names`."""
    for grey, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(root / name)
    return str(root)


def loaded(root: str, tmp_path: Path, **args: Any) -> Splits:
    return load_images("folder", args, root=root, max_gib=1, cache_dir=tmp_path / "cache")


def test_splits_that_are_named(tmp_path: Path) -> None:
    names = ("train/a/1.png", "train/b/1.png", "validation/b/1.png", "validation/a/1.png", "test/b/1.png")
    found = loaded(write(tmp_path / "x", *names), tmp_path, val_split="validation")
    assert found.val is not None and found.test.labels.tolist() == [1]
    assert (found.train.classes, found.train.labels.tolist()) == (("a", "b"), [0, 1])
    assert found.val.pixels[:, 0, 0, 0].tolist() == [3, 2] and found.val.labels.tolist() == [0, 1]
    (tmp_path / "x" / "test").rename(tmp_path / "x" / "Testing")
    assert loaded(str(tmp_path / "x"), tmp_path).test is None
    assert len(loaded(str(tmp_path / "x"), tmp_path, test_split="Testing").test) == 1


def test_no_splits_are_a_training_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = loaded(write(tmp_path / "x", "cat/1.png", "train/1.png", "dog/1.png"), tmp_path)
    assert (found.val, found.test, found.train.classes) == (None, None, ("cat", "dog", "train"))
    with pytest.raises(DataError, match=r"has no split 'testing'; data\.args\.test_split can be: train"):
        loaded(str(tmp_path / "x"), tmp_path, test_split="testing")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Train/a/1.png", "Test/a/1.png"], r"Test, Train look like splits.*data\.args\.train_split"),
        (["train/1.png", "test/1.png"], r"test, train look like splits: they need a folder for each class"),
        (["train/1.png"], r"train look like splits: they need a folder for each class"),
        (["test/a/1.png"], r"test look like splits"),
        (["1.png", "2.png"], r"holds no data set: expected .* data\.name=table"),
        (["train/a/1.png", "train/2.png"], r"x/train: 1 of 2 pictures lie in folders of classes.*data\.name=table"),
        (["train/a/1.png", "test/1.png", "test/2.png"], r"x/test: 0 of 2 .*data\.args\.test_split=null"),
        (["train/a/1.png", "test/b/1.png"], r"1 of 1 pictures have a label in 'label' that is not among .*'b'"),
    ],
)
def test_what_has_no_label_is_one_message(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        loaded(write(tmp_path / "x", *names), tmp_path)


def test_a_split_without_labels_is_left_out(tmp_path: Path) -> None:
    assert loaded(write(tmp_path / "x", "train/a/1.png", "test/1.png"), tmp_path, test_split=None).test is None


@pytest.mark.parametrize("root", ["{0}/nothing", "{0}/x/train/a/1.png"])
def test_a_root_that_is_no_folder(tmp_path: Path, root: str) -> None:
    write(tmp_path / "x", "train/a/1.png")
    with pytest.raises(DataError, match=r"data\.root=.* is no folder: expected pictures in SPLIT/CLASS"):
        folder.cache_key(root=root.format(tmp_path))
    with pytest.raises(DataError, match=r"data\.root=None .*: expected pictures"):
        folder.cache_key(root=None)


def test_folders_below_a_class_and_links(tmp_path: Path) -> None:
    write(tmp_path / "x", "train/a/1.png", "train/a/deep/er/2.png", "train/b/3.png")
    write(tmp_path / "elsewhere", "1.JPG", "more/2.jpeg")
    (tmp_path / "x" / "train" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x" / "train" / "b" / "up").symlink_to(tmp_path / "x" / "train" / "b")
    (tmp_path / "x" / "README").symlink_to("nothing")
    (tmp_path / "x" / "train" / "b" / "notes").symlink_to("nothing")
    (tmp_path / "root").symlink_to(tmp_path / "x")
    train = loaded(str(tmp_path / "root"), tmp_path).train
    assert [train.classes[label] for label in train.labels] == ["a", "a", "b", "c", "c"]


def test_a_picture_behind_a_dangling_link_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x", "train/a/1.png")
    (tmp_path / "x" / "train" / "a" / "2.png").symlink_to("nothing.png")
    with pytest.raises(DataError, match=r"2\.png|picture 1"):
        loaded(str(tmp_path / "x"), tmp_path)


JUNK = ("a/.ipynb_checkpoints/1.png", "__MACOSX/a/._1.png", "a/._1.png", "a/.DS_Store", "b/Thumbs.db", "b/desktop.ini")


def test_what_other_programs_left_is_passed_over_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = Path(write(tmp_path / "x", "train/a/1.png", "train/b/1.png", "test/b/1.png"))
    clean = folder.cache_key(root=str(root))
    for name in (*JUNK, "a/scan.pdf", "a/notes.txt", "empty/notes.txt"):
        (root / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / name).write_bytes(b"junk")
    (root / ".cache").mkdir()
    with caplog.at_level(logging.INFO, "cifar_lab"):
        assert folder.cache_key(root=str(root)) == clean
        train = loaded(str(root), tmp_path).train
    assert (train.classes, len(train)) == (("a", "b"), 2)
    said = [message for message in caplog.messages if "passed over" in message]
    assert len(said) == 2, "once for each key"
    # The class without pictures is one more than its file.
    assert f"{root}: 10 passed over, hidden or without pictures: " in said[0]


def test_a_name_is_one_in_all_forms_of_unicode(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    found = loaded(write(tmp_path / "x", "train/a/1.png", f"train/{composed}/1.png", f"test/{apart}/1.png"), tmp_path)
    assert (found.train.classes, found.test.labels.tolist()) == (("a", composed), [1])


def test_arguments_are_checked_before_anything_is_read() -> None:
    from cifar_lab.recipe.plugins import SOURCES

    (problem,) = SOURCES.problems("folder", {"size": "big"})
    assert "data.args.size" in problem.keys


def test_the_key_follows_the_splits_that_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "train/a/1.png", "test/a/1.png", "other/1.png")
    before = folder.cache_key(root=root)
    write(tmp_path / "x", "other/2.png", "other/b/2.png")
    assert folder.cache_key(root=root) == before
    np.testing.assert_equal(folder.cache_key(root=root, size=4) == before, False)
    write(tmp_path / "x", "train/a/b/2.png")
    assert folder.cache_key(root=root) != before
