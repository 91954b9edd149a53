"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): parquet files, the classic release or its archive, else from the hub."""

import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cifar_lab.data.on_disk import file_at, files_below, stamp
from cifar_lab.data.raw import DataError, RawSplit
from cifar_lab.data.tables import Tables, find_tables, read_split

# By the number of classes: the folder of the classic release, a file in it, and the column of labels of parquet files.
RELEASES = {10: ("cifar-10-batches-py", "batches.meta", "label"), 100: ("cifar-100-python", "meta", "fine_label")}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load(num: int, split: str, root: str | None, labels: str) -> RawSplit | None:
    """`split` of CIFAR-`num` from the first place that holds it. Raises DataError naming every place looked at."""
    if split == "val":
        return None
    place = find(num, root)
    if place is not None and _is_classic(num, place):
        raw = _from_batches(num, place, split, labels)
    else:
        tables = _from_hub(num) if place is None else find_tables(place)
        found = read_split(split, tables, place, ("train", None, "test"), labels=labels)
        assert found is not None
        unnamed = found.classes == tuple("0123456789")  # bare integers, in the usual order
        raw = replace(found, classes=CLASSES) if unnamed else found
    _, height, width, _ = raw.images.shape
    right = raw.classes == CLASSES if num == 10 else len(raw.classes) == (20 if labels == "coarse_label" else 100)
    if not right or (height, width) != (32, 32):
        raise DataError(f"{place} is not CIFAR-{num}: {width} x {height} pixels, classes {raw.classes}")
    return raw


def cache_key(num: int, root: str | None) -> str:
    """The place with the stamp of its files, or the hub id."""
    place = find(num, root)
    if place is None:
        return f"hub:uoft-cs/cifar{num}"
    place = place.resolve()
    below = files_below(place, ("",) if _is_classic(num, place) else (".parquet",))
    return f"{place}\n{stamp([file_at(place)] if place.is_file() else below)}"


def find(num: int, root: str | None, **args: object) -> Path | None:
    """Folder or archive at `root`, $CIFAR_LAB_DATA or ./data; None: only the hub is left.

    A place that was named by the user must hold the data, else DataError; ./data may hold anything.
    """
    for name, named in (("data.root", root), ("CIFAR_LAB_DATA", os.environ.get("CIFAR_LAB_DATA"))):
        if named:
            where = Path(named).expanduser()
            place = _locate(num, where)
            if place is None:
                raise DataError(
                    f"{name}={named} {f'holds no CIFAR-{num}' if where.exists() else 'does not exist'}: expected a "
                    f"folder with train-*.parquet and test-*.parquet, {RELEASES[num][0]} or cifar-{num}-python.tar.gz"
                )
            return place
    try:
        return _locate(num, Path("data"))
    except DataError:  # nobody said that it is ours
        return None


def _locate(num: int, where: Path) -> Path | None:
    for place in (where, where / RELEASES[num][0], where / f"cifar-{num}-python.tar.gz"):
        if _is_classic(num, place):
            return place
    tables = find_tables(where) if where.is_dir() else {}
    if not {"train", "test"} <= tables.keys():
        return None
    label = tables["train"]().features.get(RELEASES[num][2])
    return where if label and (num == 100 or tuple(label.get("names", CLASSES)) == CLASSES) else None


def _is_classic(num: int, place: Path) -> bool:
    return (place / RELEASES[num][1]).is_file() or (place.is_file() and place.name.endswith((".tar.gz", ".tgz")))


def _from_batches(num: int, place: Path, split: str, labels: str) -> RawSplit:
    """From the pickled batches, of which torchvision unpickles only those with the published md5."""
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    kind = datasets.CIFAR10 if num == 10 else datasets.CIFAR100
    with TemporaryDirectory() as scratch:
        folder = place
        if place.is_file() and check_integrity(place, kind.tgz_md5):
            with tarfile.open(place, "r:gz") as tar:
                tar.extractall(scratch, filter="data")
            folder = Path(scratch, RELEASES[num][0])
        try:
            data = type("Here", (kind,), {"base_folder": folder.name})(folder.parent, train=split == "train")
        except RuntimeError as error:
            raise DataError(
                f"{place} is incomplete, damaged or another file: its md5 sums are not the published ones; "
                f"delete it and fetch CIFAR-{num} again"
            ) from error
        targets, classes = data.targets, data.classes
        if labels == "coarse_label":  # torchvision leaves them out
            targets = pickle.loads((folder / split).read_bytes(), encoding="latin1")["coarse_labels"]
            classes = pickle.loads((folder / "meta").read_bytes(), encoding="latin1")["coarse_label_names"]
    return RawSplit(data.data, np.array(targets, np.int64), tuple(classes))


def _from_hub(num: int) -> Tables:
    from cifar_lab.data.hub_access import hub_splits

    try:
        return hub_splits(f"uoft-cs/cifar{num}")
    except DataError as error:
        raise DataError(
            f"CIFAR-{num} was not found: data.root and CIFAR_LAB_DATA are not set, {Path('data').resolve()} does not "
            f"hold it, and {error}. Set CIFAR_LAB_DATA or data.root to a copy, or use data.name=shapes, which needs no "
            "files"
        ) from error
