"""Tables of pictures and labels: which columns, which splits, what paths mean, and what a wrong one says."""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_lab.data.images import Splits, load_images
from cifar_lab.data.raw import DataError
from cifar_lab.data.sources import table


def pictures(root: Path, *names: str) -> None:
    for grey, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(root / name, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pictures(tmp_path / "x", *(f"{i}.png" for i in range(4)))
    return tmp_path / "x"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def loaded(place: Path, **args: Any) -> Splits:
    return load_images("table", args, root=str(place), max_gib=1, cache_dir=place.parent / "cache")


def greys(images: Any) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


def test_metadata_beside_pictures(root: Path) -> None:
    write(root / "metadata.csv", "file_name,label\n2.png,dog\n0.png,cat\n")
    found = loaded(root)
    assert (found.train.classes, found.train.labels.tolist(), greys(found.train)) == (("cat", "dog"), [1, 0], [2, 0])
    assert (found.val, found.test) == (None, None)
    assert found.train.names == [str(root / "2.png"), str(root / "0.png")]
    assert loaded(root / "metadata.csv").train.fingerprint == found.train.fingerprint


@pytest.mark.parametrize("form", ["train.csv", "train/metadata.csv", "train-0.parquet"])
def test_a_file_for_each_split(root: Path, form: str) -> None:
    for split, rows in (
        ("train", {"path": ["0.png", "1.png"], "label": [3, 10]}),
        ("test", {"path": ["2.png"], "label": [10]}),
    ):
        file = root / form.replace("train", split)
        if file.suffix == ".csv":
            lines = [",".join(map(str, row)) for row in zip(*rows.values(), strict=True)]
            write(file, "path,label\n" + "\n".join(lines))
        else:
            pq.write_table(pa.table(rows), file)
    found = loaded(root, folder=str(root))
    assert (found.train.classes, found.test.labels.tolist(), greys(found.test)) == (("3", "10"), [1], [2])


def test_columns_and_a_column_of_splits(root: Path) -> None:
    write(
        root / "all.csv",
        "id,photo,kind,fold,price\n1,0.png,b,train,1\n2,1.png,a,dev,2\n3,2.png,b,test,3\n4,3.png,a,train,4\n",
    )
    args = {"image_column": "photo", "label_column": "kind"}
    found = loaded(root / "all.csv", split_column="fold", val_split="dev", **args)
    assert found.val is not None
    assert [greys(images) for images in (found.train, found.val, found.test)] == [[0, 3], [1], [2]]
    assert found.val.labels.tolist() == [0]
    assert greys(loaded(root / "all.csv", **args).train) == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"which column\? none is evident among id, photo, .*data\.args\.image_column="):
        loaded(root / "all.csv", label_column="kind")
    with pytest.raises(DataError, match=r"no column 'cut'; data\.args\.split_column can be: id, photo"):
        loaded(root / "all.csv", split_column="cut", **args)
    with pytest.raises(DataError, match=r"no split 'val'; data\.args\.val_split can be: dev, test, train"):
        loaded(root / "all.csv", split_column="fold", val_split="val", **args)
    write(root / "test.csv", "file,label\n0.png,a\n")
    with pytest.raises(DataError, match=r"split_column is for one table; .* holds all, test"):
        loaded(root, split_column="fold", **args)


def test_pictures_in_the_table_and_a_table_behind_a_link(root: Path, tmp_path: Path) -> None:
    cells = []
    for grey in (5, 6):
        out = io.BytesIO()
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(out, "PNG")
        cells.append(out.getvalue())
    pq.write_table(pa.table({"image": cells, "label": ["a", "b"], "path": ["x", "y"]}), tmp_path / "blob")
    (root / "linked.parquet").symlink_to(tmp_path / "blob")
    for place, args in ((root / "linked.parquet", {}), (root, {"train_split": "linked"})):
        found = loaded(place, label_column="label", **args)
        assert greys(found.train) == [5, 6]


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["-1", "1", "1", "-1"], ("-1", "1"), [0, 1, 1, 0]),
        (["1.0", "0", "1", "0.0"], ("0", "1"), [1, 0, 1, 0]),  # a float column, as pandas writes it
        (["NA", "x", "None", "x"], ("NA", "None", "x"), [0, 2, 1, 2]),
    ],
)
def test_labels(root: Path, labels: list[str], classes: tuple[str, ...], expected: list[int]) -> None:
    write(root / "all.csv", "file,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels)))
    train = loaded(root / "all.csv", label_column="label").train
    assert (train.classes, train.labels.tolist()) == (classes, expected)


@pytest.mark.parametrize(
    "labels",
    [
        ["-1", "0", "1", "2"],
        ["1", "", "0", "1"],
        ["a", "b", "", "a"],
        ["1.0", "", "0.0", "1.0"],
        ["1.0", "0.5", "0", "2"],
    ],
)
def test_an_unlabelled_picture_is_one_message(root: Path, labels: list[str]) -> None:
    write(root / "all.csv", "file,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels)))
    with pytest.raises(DataError, match=r"1 of 4 pictures have a label in 'label' .*\(None and -1 mean unlabelled\)"):
        loaded(root / "all.csv", label_column="label")


def test_paths_are_found_in_other_forms_and_folders(root: Path, tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "é")
    pictures(root, f"{apart}.png", "deep/1.png")
    write(
        tmp_path / "tables" / "all.csv", "file,label\n" + "\n".join(("é.png,a", "deep\\1.png,b", f"{root / '2.png'},b"))
    )
    assert greys(loaded(tmp_path / "tables" / "all.csv", folder="../x").train) == [0, 1, 2]
    said = r"2 of 3 pictures are not there, such as é\.png, deep\\1\.png: .* begin at .*tables, or .*data\.args\.folder"
    with pytest.raises(DataError, match=said):
        loaded(tmp_path / "tables" / "all.csv")


def test_a_dangling_link_is_not_there(root: Path) -> None:
    (root / "9.png").symlink_to("nothing")
    write(root / "all.csv", "file,label\n0.png,a\n9.png,b\n")
    with pytest.raises(DataError, match=r"1 of 2 pictures are not there, such as 9\.png"):
        loaded(root / "all.csv")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, "is no csv or parquet file"),
        ("{0}/nothing.csv", "is no csv or parquet file, and no folder with one named after each split"),
        ("{0}", "is no csv or parquet file"),
        ("{0}/0.png", "is not readable"),
    ],
)
def test_a_root_that_is_no_table(root: Path, name: str | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        table.cache_key(root=name and name.format(root))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\n0.png,Ä\n".encode("latin-1"), r"not readable \(it is not UTF-8\): correct it"),
        (b"file;label\n0.png;a\n", r"which column\? none is evident among file;label"),
        (b"file,label\n0.png,a,b\n", r"not readable \(CSV parse error: Expected 2 columns, got 3"),
        (b"", "Empty CSV file"),
        (b"file,label\n", r"which column\? none is evident among file, label"),
    ],
)
def test_a_csv_file_that_is_another_kind_of_text(root: Path, text: bytes, said: str) -> None:
    (root / "all.csv").write_bytes(text)
    with pytest.raises(DataError, match=said):
        loaded(root / "all.csv")


def test_a_csv_file_of_a_spreadsheet(root: Path) -> None:
    (root / "all.csv").write_bytes('\ufefffile,label\r\n0.png,"a, b"\r\n1.png,c\r\n'.encode())
    assert loaded(root / "all.csv").train.classes == ("a, b", "c")


def test_the_key_follows_the_table_and_its_pictures(root: Path) -> None:
    file = write(root / "all.csv", "file,label\n0.png,a\n1.png,b\n")
    seen = [table.cache_key(root=str(file))]
    os.utime(root / "2.png", (1, 1))
    assert table.cache_key(root=str(file)) == seen[0]
    os.utime(root / "1.png", (1, 1))
    seen.append(table.cache_key(root=str(file)))
    write(file, "file,label\n0.png,b\n1.png,a\n")
    os.utime(file, (2, 2))
    seen.append(table.cache_key(root=str(file)))
    assert len(set(seen)) == 3
