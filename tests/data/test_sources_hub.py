"""Copies of hub data sets in every form, columns found or named, and what unfit data say."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_lab.data.raw import DataError
from cifar_lab.data.sources import hub


def picture(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new("L", size, value).convert(mode)


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def cells(images: list[Image.Image]) -> list[dict[str, Any]]:
    return [{"bytes": encode(image), "path": None} for image in images]


def write_splits(root: Path, train: dict[str, list[Any]], test: dict[str, list[Any]] | None = None) -> str:
    """Parquet files without the metadata of `datasets`; the test split is the same unless given."""
    root.mkdir(exist_ok=True)
    for split, columns in (("train", train), ("test", test or train)):
        pq.write_table(pa.table(columns), root / f"{split}-00000-of-00001.parquet")
    return str(root)


GREYS = [10, 20, 30, 40]


def simple(labels: list[Any] | None = None, **options: Any) -> dict[str, list[Any]]:
    return {"image": cells([picture(value, **options) for value in GREYS]), "label": labels or [0, 1, 2, 1]}


def test_save_to_disk(tmp_path: Path) -> None:
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    columns = {"photo": [picture(value) for value in GREYS], "kind": [0, 1, 1, 0]}
    whole = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(train=whole, test=whole.select([2, 1])).save_to_disk(tmp_path / "saved")
    raw = hub.load("test", root=str(tmp_path / "saved"), id="some/pets")
    assert raw.classes == ("cat", "dog")
    np.testing.assert_array_equal(raw.images[:2][:, 0, 0], [[30] * 3, [20] * 3])
    np.testing.assert_array_equal(raw.labels, [1, 1])


def test_image_folders(tmp_path: Path) -> None:
    for split, names in (("train", ("b", "a")), ("test", ("b",))):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            picture(len(split) + ord(name)).save(tmp_path / split / name / "x.png")
            (tmp_path / split / name / "notes.txt").write_text("no picture")
    train, test = (hub.load(split, root=str(tmp_path), id="mine") for split in ("train", "test"))
    assert train.classes == test.classes == ("a", "b")
    np.testing.assert_array_equal(train.images[:2][:, 0, 0, 0], [5 + ord("a"), 5 + ord("b")])
    np.testing.assert_array_equal(test.labels, [1])


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [(["b", "a", "c", "a"], ("a", "b", "c"), [1, 0, 2, 0]), ([7, 3, 10, 3], ("3", "7", "10"), [1, 0, 2, 0])],
)
def test_plain_labels_are_sorted(
    tmp_path: Path, labels: list[Any], classes: tuple[str, ...], expected: list[int]
) -> None:
    raw = hub.load("train", root=write_splits(tmp_path, simple(labels)), id="x")
    assert raw.classes == classes
    np.testing.assert_array_equal(raw.labels, expected)


def test_split_folders_and_configurations(tmp_path: Path) -> None:
    for config, offset in (("small", 0), ("large", 100)):
        for split in ("train", "test"):
            (tmp_path / config / split).mkdir(parents=True)
            columns = {"image": cells([picture(offset), picture(offset + 1)]), "label": [0, 1]}
            pq.write_table(pa.table(columns), tmp_path / config / split / "0000.parquet")
    assert hub.load("test", root=str(tmp_path), id="x", config="large").images[:1][0, 0, 0, 0] == 100
    with pytest.raises(DataError, match=r"several tables .*large, small"):
        hub.load("test", root=str(tmp_path), id="x")


def test_columns_are_named_when_they_are_not_evident(tmp_path: Path) -> None:
    columns = {"image": simple()["image"], "coarse": [0, 0, 1, 1], "fine": [0, 1, 2, 3]}
    root = write_splits(tmp_path, columns)
    with pytest.raises(
        DataError, match=r"several could be it \(coarse, fine\): name it with data\.args\.label_column="
    ):
        hub.load("train", root=root, id="x")
    assert len(hub.load("train", root=root, id="x", label_column="fine").classes) == 4
    with pytest.raises(DataError, match=r"no column 'picture'; data\.args\.image_column can be: image, coarse, fine"):
        hub.load("train", root=root, id="x", label_column="fine", image_column="picture")


def test_a_column_of_a_usual_name_holds_the_labels(tmp_path: Path) -> None:
    columns = {**simple(), "number": [7, 7, 7, 7]}
    raw = hub.load("train", root=write_splits(tmp_path, columns), id="x")
    assert raw.classes == ("0", "1", "2")


def test_a_missing_split_lists_those_there_are(tmp_path: Path) -> None:
    root = write_splits(tmp_path, simple())
    with pytest.raises(DataError, match=r"no split 'validation'; data\.args\.test_split can be: test, train"):
        hub.load("test", root=root, id="x", test_split="validation")
    with pytest.raises(DataError, match="must differ"):
        hub.load("test", root=root, id="x", test_split="train")


@pytest.mark.parametrize("missing", [-1, None])
def test_unlabelled_pictures_are_refused(tmp_path: Path, missing: int | None) -> None:
    root = write_splits(tmp_path, simple(), simple([0, missing, missing, 1]))
    with pytest.raises(DataError, match=r"2 of 4 pictures have a label in 'label'.*such as.*data\.args\.test_split"):
        hub.load("test", root=root, id="x")


def test_a_label_that_training_does_not_know(tmp_path: Path) -> None:
    root = write_splits(tmp_path, simple(["a", "b", "a", "b"]), simple(["a", "b", "z", "b"]))
    with pytest.raises(DataError, match="not among the training split's 2, such as 'z'"):
        hub.load("test", root=root, id="x")


def test_mixed_sizes_need_one_side(tmp_path: Path) -> None:
    columns = simple()
    columns["image"][2] = cells([picture(30, (16, 8))])[0]
    root = write_splits(tmp_path, columns)
    sizes = r"picture 2 is 16 x 8 pixels, not 8 x 8\).*data\.args\.size="
    with pytest.raises(DataError, match=sizes):
        hub.load("train", root=root, id="x").images[:4]
    raw = hub.load("train", root=root, id="x", size=6)
    assert raw.images.shape == (4, 6, 6, 3)
    np.testing.assert_array_equal(raw.images[:4][:, 3, 3, 0], GREYS)


def test_one_size_that_is_not_square(tmp_path: Path) -> None:
    raw = hub.load("train", root=write_splits(tmp_path, simple(size=(12, 8))), id="x")
    with pytest.raises(DataError, match=r"picture 0 is 12 x 8 pixels, not square.*data\.args\.size="):
        _ = raw.images.shape


def test_size_keeps_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    columns = {"image": cells([Image.fromarray(wide)] * 2), "label": [0, 1]}
    raw = hub.load("train", root=write_splits(tmp_path, columns), id="x", size=8)
    assert raw.images[:1].min() == 200


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_pictures_are_expanded(tmp_path: Path, mode: str) -> None:
    columns = simple()
    greys = [
        Image.fromarray(np.full((8, 8), v * 256, np.uint16)) if mode == "I;16" else picture(v, mode=mode) for v in GREYS
    ]
    columns["image"] = cells(greys)
    rows = hub.load("train", root=write_splits(tmp_path, columns), id="x").images[:4]
    expected = np.asarray(picture(GREYS[0], mode="1").convert("L"))[0, :1] if mode == "1" else [GREYS[0]]
    np.testing.assert_array_equal(rows[0, 0, 0], [*expected] * 3)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_other_modes_are_converted(tmp_path: Path, mode: str) -> None:
    image = picture(51).convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes([128] * 41)  # half transparent: Pillow keeps it as bytes
    columns = {
        "image": [{"bytes": encode(image, "TIFF" if mode == "CMYK" else "PNG"), "path": None}] * 2,
        "label": [0, 1],
    }
    rows = hub.load("train", root=write_splits(tmp_path, columns), id="x").images[:2]
    np.testing.assert_array_equal(rows[0, 0, 0], [51, 51, 51])


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    upper_white = np.zeros((8, 8, 3), np.uint8)
    upper_white[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    out = io.BytesIO()
    Image.fromarray(upper_white).save(out, "PNG", exif=exif)
    columns = {"image": [{"bytes": out.getvalue(), "path": None}] * 2, "label": [0, 1]}
    rows = hub.load("train", root=write_splits(tmp_path, columns), id="x").images[:1]
    assert rows[0, :4].max() == 0
    assert rows[0, 4:].min() == 255


def test_a_root_that_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no data set: expected .*SPLIT/CLASS.*save_to_disk"):
        hub.load("train", root=str(tmp_path), id="x")
    with pytest.raises(DataError, match=r"data\.root=.*typo is no folder"):
        hub.load("train", root=str(tmp_path / "typo"), id="x")


def test_the_hub_out_of_reach_is_one_message() -> None:
    with pytest.raises(DataError, match=r"'no/such' is not in the cache.*cannot be reached.*set data\.root to a copy"):
        hub.load("train", root=None, id="no/such")


def test_no_network_is_noticed_before_datasets_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for settings in (constants, datasets.config):
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", False)
    for settings, name in ((constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
        monkeypatch.setattr(settings, name, "http://127.0.0.1:9")  # the discard port: refused
    asked_offline, load_dataset = [], datasets.load_dataset

    def load(*args: Any) -> Any:
        asked_offline.append(datasets.config.HF_HUB_OFFLINE)
        return load_dataset(*args)

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="cannot be reached"):
        hub.load("train", root=None, id="no/such")
    assert asked_offline == [True], "it retries for twenty seconds"


def test_the_key_follows_arguments_and_files(tmp_path: Path) -> None:
    root = write_splits(tmp_path, simple())
    before = hub.cache_key(root=root, id="x")
    assert hub.cache_key(root=root, id="x") == before
    assert hub.cache_key(root=root, id="x", size=16) != before
    os.utime(tmp_path / "train-00000-of-00001.parquet", (1, 1))
    assert hub.cache_key(root=root, id="x") != before
