"""CIFAR-10 (Krizhevsky, 2009): parquet files, the classic release or its archive, else fetched from the hub."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cifar_lab.data.on_disk import file_at, stamp
from cifar_lab.data.raw import DataError, RawSplit, SourceInfo
from cifar_lab.data.tables import Table, parquet_files, parquet_splits, to_raw

HUB_ID = "uoft-cs/cifar10"
FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load(split: str, *, root: str | None) -> RawSplit | None:
    """`split` from the first place that holds CIFAR-10. Raises DataError naming every place looked at."""
    if split == "val":
        return None
    place = find(root)
    if place is None:
        return _from_hub(split)
    raw = _from_batches(place, split) if _is_classic(place) else _from_tables(parquet_splits(place), split)
    _, height, width, _ = raw.images.shape
    if raw.classes != CLASSES or (height, width) != (32, 32):
        raise DataError(f"{place} is not CIFAR-10: {width} x {height} pixels, classes {raw.classes}")
    return raw


def cache_key(*, root: str | None) -> str:
    """The place with the stamp of its files, or the hub id."""
    place = find(root)
    if place is None:
        return f"hub:{HUB_ID}"
    place = place.resolve()
    if _is_classic(place):
        files = [file_at(path) for path in ([place] if place.is_file() else sorted(place.glob("*batch*")))]
    else:
        files = list(chain.from_iterable(parquet_files(place).values()))
    return f"{place}\n{stamp(files)}"


def info() -> SourceInfo:
    """The sizes of the published data set."""
    return SourceInfo(num_train=50_000, num_test=10_000, num_classes=10, image_size=32)


def find(root: str | None) -> Path | None:
    """Folder or archive at `root`, $CIFAR_LAB_DATA or ./data; None: only the hub is left.

    A place that was named by the user must hold CIFAR-10, else DataError; ./data may hold anything.
    """
    for name, named in (("data.root", root), ("CIFAR_LAB_DATA", os.environ.get("CIFAR_LAB_DATA"))):
        if named:
            where = Path(named).expanduser()
            place = _locate(where)
            if place is None:
                raise DataError(
                    f"{name}={named} {'holds no CIFAR-10' if where.exists() else 'does not exist'}: expected a folder "
                    f"with train-*.parquet and test-*.parquet, {FOLDER} or {ARCHIVE}"
                )
            return place
    try:
        return _locate(Path("data"))
    except DataError:  # nobody said that it is ours
        return None


def _locate(where: Path) -> Path | None:
    for place in (where, where / FOLDER, where / ARCHIVE):
        if _is_classic(place):
            return place
    return where if where.is_dir() and _holds_parquet(where) else None


def _is_classic(place: Path) -> bool:
    is_archive = place.is_file() and place.name.endswith((".tar.gz", ".tgz"))
    return is_archive or any((place / name).is_file() for name in ("data_batch_1", "batches.meta"))


def _holds_parquet(folder: Path) -> bool:
    tables = parquet_splits(folder)
    if not {"train", "test"} <= tables.keys():
        return False
    label = tables["train"].features.get("label")
    return label is not None and tuple(label.get("names", CLASSES)) == CLASSES


def _from_batches(place: Path, split: str) -> RawSplit:
    """From the pickled batches, of which torchvision unpickles only those with the published md5."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    with TemporaryDirectory() as scratch:
        folder = place
        if place.is_file() and check_integrity(place, CIFAR10.tgz_md5):
            with tarfile.open(place, "r:gz") as tar:
                tar.extractall(scratch, filter="data")
            folder = Path(scratch, FOLDER)

        class Here(CIFAR10):  # type: ignore[misc]
            base_folder = folder.name

        try:
            data = Here(folder.parent, train=split == "train")
        except RuntimeError as error:
            raise DataError(
                f"{place} is incomplete, damaged or another file: its md5 sums are not the published ones; "
                "delete it and fetch CIFAR-10 again"
            ) from error
    return RawSplit(data.data, np.array(data.targets, np.int64), tuple(data.classes))


def _from_tables(tables: Mapping[str, Table], split: str) -> RawSplit:
    raw = to_raw(tables[split], tables["train"], labels="label")
    unnamed = raw.classes == tuple("0123456789")  # bare integers, in the usual order
    return RawSplit(raw.images, raw.labels, CLASSES if unnamed else raw.classes)


def _from_hub(split: str) -> RawSplit:
    from cifar_lab.data.hub_access import hub_splits

    try:
        tables = hub_splits(HUB_ID)
    except DataError as error:
        raise DataError(
            f"CIFAR-10 was not found: data.root and CIFAR_LAB_DATA are not set, {Path('data').resolve()} does not hold "
            f"it, and {error}. Set CIFAR_LAB_DATA or data.root to a copy, or use data.name=shapes, which needs no files"
        ) from error
    return _from_tables(tables, split)
