"""Labels are matched by name across splits, whatever their order and form; what training does not know is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_lab.data.cifar import CLASSES
from cifar_lab.data.raw import DataError
from cifar_lab.data.sources import cifar10, hub

Split = tuple[list[Any], list[str] | None]  # labels, and names of a ClassLabel


def write(root: Path, side: int = 8, **splits: Split) -> str:
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "PNG")
    for split, (labels, names) in splits.items():
        table = pa.table({"image": [{"bytes": out.getvalue(), "path": None}] * len(labels), "label": labels})
        if names is not None:
            features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, root / f"{split}-0.parquet")
    return str(root)


NAMES = ["cat", "dog", "emu"]


@pytest.mark.parametrize(
    ("train", "test", "classes", "expected"),
    [
        (([0, 1, 2], NAMES), ([0, 1, 2, 1], ["emu", "cat", "dog"]), NAMES, [2, 0, 1, 0]),
        (([0, 1, 2], NAMES), ([0, 0], ["dog"]), NAMES, [1, 1]),
        (([0, 1, 2], NAMES), ([1, 1], ["fox", "emu"]), NAMES, [2, 2]),
        (([0, 1, 2], NAMES), (["emu", "cat"], None), NAMES, [2, 0]),
        (([0, 1, 2], NAMES), ([2, 0], None), NAMES, [2, 0]),
        ((["emu", "cat"], None), ([0, 1], ["emu", "cat"]), ["cat", "emu"], [1, 0]),
        ((["emu", "cat", "dog"], None), (["emu", "emu"], None), NAMES, [2, 2]),
        (([0, 10, 3], None), ([10, 0], None), ["0", "3", "10"], [2, 0]),
        (([0, 10, 3], None), ([0, 1], ["3", "10"]), ["0", "3", "10"], [1, 2]),
        (([-1, 1, 1], None), ([1, -1], None), ["-1", "1"], [1, 0]),
        (([0, 1], ["0", "1"]), ([1, 0], None), ["0", "1"], [1, 0]),
    ],
    ids=[
        *("other order", "subset", "a name without pictures", "text for names", "bare integers"),
        *("names for text", "text", "gaps", "names of digits", "signs", "digits that are places"),
    ],
)
def test_by_name(tmp_path: Path, train: Split, test: Split, classes: list[str], expected: list[int]) -> None:
    root = write(tmp_path, train=train, test=test)
    raw = hub.load("test", root=root, id="x")
    assert raw.classes == hub.load("train", root=root, id="x").classes == tuple(classes)
    np.testing.assert_array_equal(raw.labels, expected)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (([0, 1, 2], NAMES), ([0, 1, 1], ["cat", "fox"]), r"2 of 3 pictures .* training split's 3, such as 'fox' "),
        (([0, 1], None), ([0, 2], None), "1 of 2 pictures .* such as '2' "),
        (([0, 1, 2], NAMES), ([0, 3], None), "1 of 2 pictures .* such as 3 "),
        (([0, 1, 2], NAMES), ([-1, 0], NAMES), "1 of 2 pictures .* such as -1 "),
        ((["a", "b"], None), (["z", "y", "z"], None), "3 of 3 pictures .* such as 'y', 'z' "),
        (
            ([0, 1], ["1", "2"]),
            ([1, 0], None),
            r"whether 1 in 'label' is the class '1' or the second of 1, 2 .*ClassLabel",
        ),
    ],
)
def test_what_training_does_not_know(tmp_path: Path, train: Split, test: Split, said: str) -> None:
    with pytest.raises(DataError, match=said):
        hub.load("test", root=write(tmp_path, train=train, test=test), id="x")


def test_cifar10_with_its_test_names_in_another_order(tmp_path: Path) -> None:
    names = list(CLASSES)
    root = write(tmp_path, 32, train=(list(range(10)), names), test=([0, 1], names[::-1]))
    np.testing.assert_array_equal(cifar10.load("test", root=root).labels, [9, 8])


def test_folders_in_other_splits(tmp_path: Path) -> None:
    for name in ("train/b", "train/a", "train/c", "test/c", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "x.png")
    np.testing.assert_array_equal(hub.load("test", root=str(tmp_path), id="x").labels, [1, 2])
