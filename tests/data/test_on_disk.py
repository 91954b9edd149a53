"""A cache never answers for other pictures than those on disk, in whatever form they lie there."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_lab.data.images import load_images
from cifar_lab.data.on_disk import files_below, stamp
from cifar_lab.data.raw import DataError

CLASSES = {"a": 10, "b": 200}


def write_picture(file: Path, grey: int) -> None:
    """Always of the same size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(file)


def write_pictures(root: Path, greys: dict[str, int]) -> None:
    for split in ("train", "test"):
        for name, grey in greys.items():
            write_picture(root / split / name / "x.bmp", grey)


def rows(greys: dict[str, int]) -> dict[str, list[Any]]:
    cells = []
    for grey in greys.values():
        out = io.BytesIO()
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(out, "BMP")
        cells.append({"bytes": out.getvalue(), "path": None})
    return {"image": cells, "label": list(greys)}


def write_tables(root: Path, greys: dict[str, int]) -> None:
    for split in ("train", "test"):
        (root / "more").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows(greys)), root / "more" / f"{split}-0.parquet")


def write_saved(root: Path, greys: dict[str, int]) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    whole = datasets.Dataset.from_dict(rows(greys), features=features)
    if root.exists():  # it may not be written over while it is open
        datasets.DatasetDict(train=whole, test=whole).save_to_disk(root.with_name("new"))
        for file in root.with_name("new").rglob("*.*"):
            os.replace(file, root / file.relative_to(root.with_name("new")))
    else:
        datasets.DatasetDict(train=whole, test=whole).save_to_disk(root)


FORMS = {"pictures": write_pictures, "tables": write_tables, "saved": write_saved}


@pytest.fixture
def first_greys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Loads the data in the folder of the test, and gives the grey of each training picture."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "of_datasets")

    def load(by: str) -> list[int]:
        folder = str(tmp_path / "data")
        args, root = ({"id": "mine"}, folder) if by == "root" else ({"id": folder}, None)
        train = load_images("hub", args, root=root, max_gib=1, cache_dir=tmp_path / "cache").train
        return sorted(train.pixels[:, 0, 0, 0].tolist())

    return load


@pytest.mark.parametrize(
    ("form", "by"), [("pictures", "root"), ("tables", "root"), ("saved", "root"), ("pictures", "id"), ("tables", "id")]
)
def test_files_that_are_overwritten_in_place(
    tmp_path: Path, first_greys: Callable[..., list[int]], form: str, by: str
) -> None:
    """With as many bytes, a nanosecond later."""
    root = tmp_path / "data"
    FORMS[form](root, CLASSES)
    before = {path: path.stat() for path in (root, *root.rglob("*"))}
    assert first_greys(by) == [10, 200]
    FORMS[form](root, CLASSES | {"a": 11})
    for path, stat in before.items():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (path.suffix in (".bmp", ".parquet", ".arrow"))))
    assert first_greys(by) == [11, 200]


@pytest.mark.parametrize("by", ["root", "id"])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_pictures_behind_links(tmp_path: Path, first_greys: Callable[..., list[int]], what: str, by: str) -> None:
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    write_pictures(root, CLASSES)
    write_picture(elsewhere / "x.bmp", 30)
    if what == "folder":
        (root / "train" / "c").symlink_to(elsewhere)
    else:
        (root / "train" / "b" / "y.bmp").symlink_to(elsewhere / "x.bmp")
    assert first_greys(by) == [10, 30, 200]
    write_picture(elsewhere / "x.bmp", 31)
    os.utime(elsewhere / "x.bmp", (1, 1))
    assert first_greys(by) == [10, 31, 200]
    if what == "folder":
        write_picture(elsewhere / "y.bmp", 32)
        assert first_greys(by) == [10, 31, 32, 200]


def test_tables_behind_a_link(tmp_path: Path, first_greys: Callable[..., list[int]]) -> None:
    write_tables(tmp_path / "elsewhere", CLASSES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    assert first_greys("root") == [10, 200]
    write_tables(tmp_path / "elsewhere", CLASSES | {"a": 12})
    assert first_greys("root") == [12, 200]


def test_tables_that_name_files(tmp_path: Path, first_greys: Callable[..., list[int]]) -> None:
    """As `to_parquet` writes them: wherever the pictures lie, and though the table stays as it is."""
    write_pictures(tmp_path / "elsewhere", CLASSES)
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        cells = [{"bytes": None, "path": str(tmp_path / "elsewhere" / split / name / "x.bmp")} for name in CLASSES]
        pq.write_table(pa.table({"image": cells, "label": list(CLASSES)}), tmp_path / "data" / f"{split}.parquet")
    assert first_greys("root") == [10, 200]
    file = tmp_path / "elsewhere" / "train" / "a" / "x.bmp"
    then = file.stat().st_mtime_ns
    write_picture(file, 13)
    os.utime(file, ns=(0, then + 1))
    assert first_greys("root") == [13, 200]
    file.unlink()
    with pytest.raises(DataError, match=r"a/x\.bmp cannot be read: No such file"):
        first_greys("root")


def test_what_is_not_read_changes_nothing(
    tmp_path: Path, first_greys: Callable[..., list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    """And the start says which answered, and since when."""
    root = tmp_path / "data"
    write_pictures(root, CLASSES)
    with caplog.at_level(logging.INFO, "cifar_lab"):
        first_greys("root")
        (root / "notes.txt").write_text("x")
        write_picture(root / "train" / "a" / ".hidden" / "x.bmp", 1)
        (folder,) = tmp_path.glob("cache/data/hub-????????")
        os.utime(folder, (0, 1.7e9))
        first_greys("root")
    decoded, passed, kept = caplog.messages
    assert "1 passed over" in passed
    assert decoded == f"4 pictures decoded now ({folder})"
    assert kept.startswith("4 pictures from the cache of 2023-11-1") and kept.endswith(f":13 ({folder})")


def test_a_stamp_is_of_path_size_and_nanosecond(tmp_path: Path) -> None:
    file = tmp_path / "x.png"

    def seen() -> str:
        return stamp(files_below(tmp_path, ("",)))

    file.write_bytes(b"1")
    os.utime(file, ns=(0, 5))
    found = [seen()]
    os.utime(file, ns=(9, 5))  # it was read
    assert seen() == found[0]
    os.utime(file, ns=(0, 6))
    found.append(seen())
    file.write_bytes(b"12")
    os.utime(file, ns=(0, 6))
    found.append(seen())
    file.rename(tmp_path / "y.png")
    found.append(seen())
    (tmp_path / "z.png").symlink_to(tmp_path / "y.png")
    found.append(seen())
    (tmp_path / "nothing.png").symlink_to(tmp_path / "missing")
    found.append(seen())
    assert len(set(found)) == 6


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    for name in ("b/x.png", "a/x.PNG", "a/.png", "a-b/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    names = [os.path.relpath(path, tmp_path) for path, *_ in files_below(tmp_path, (".png",))]
    assert names == ["a/x.PNG", "a-b/x.png", "b/x.png", "b/to_a/x.PNG"]


def test_a_link_to_itself_is_named(tmp_path: Path, first_greys: Callable[..., list[int]]) -> None:
    write_pictures(tmp_path / "data", CLASSES)
    (tmp_path / "data" / "train" / "a" / "y.bmp").symlink_to("y.bmp")
    with pytest.raises(DataError, match=r"cannot be read: .*train/a/y\.bmp"):
        first_greys("root")


@pytest.mark.parametrize("by", ["root", "id"])
def test_the_two_splits_count(
    tmp_path: Path, first_greys: Callable[..., list[int]], by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as what runs leave in the folder of the data."""
    write_pictures(tmp_path / "data", CLASSES)
    with caplog.at_level(logging.INFO, "cifar_lab"):
        first_greys(by)
        write_picture(tmp_path / "data" / "runs" / "first" / "augmented.png", 1)
        first_greys(by)
        write_picture(tmp_path / "data" / "test" / "a" / "x.bmp", 15)
        first_greys(by)
    assert ["from the cache of" in message for message in caplog.messages if "pictures" in message] == [
        False,
        True,
        False,
    ]


def test_a_folder_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pictures(tmp_path / "data", CLASSES)
    train = load_images("hub", {"id": "~/data"}, root=None, max_gib=1, cache_dir=tmp_path / "cache").train
    assert train.classes == ("a", "b")
