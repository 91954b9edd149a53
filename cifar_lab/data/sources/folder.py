"""Folders of pictures: SPLIT/CLASS/*, or CLASS/* alone, which is a training split; a class may have folders below."""

from functools import partial
from pathlib import Path
from typing import Any

from cifar_lab.data.arguments import Fit, OnBroken, Size, TestSplit, TrainSplit, ValSplit
from cifar_lab.data.on_disk import files_below, is_hidden
from cifar_lab.data.pictures import picture_suffixes
from cifar_lab.data.raw import DataError, RawSplit
from cifar_lab.data.tables import Table, Tables, key_of, read_split

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


def load(
    split: str,
    *,
    root: str | None,
    train_split: TrainSplit = "train",
    val_split: ValSplit = None,
    test_split: TestSplit = "test",
    size: Size = None,
    fit: Fit = "crop",
    on_broken: OnBroken = "error",
) -> RawSplit | None:
    """The pictures of `split`. Raises DataError."""
    names, how = (train_split, val_split, test_split), {"size": size, "fit": fit, "on_broken": on_broken}
    return read_split(split, tables(root, train_split), root, names, **how)


def cache_key(*, root: str | None, **args: Any) -> str:
    """Place and arguments, with the stamp of the pictures of the splits that are named."""
    return key_of(Path(root or "").expanduser().absolute(), tables(root, args.get("train_split", "train")), args)


def find(root: str | None, **args: Any) -> Path:
    """The folder. Raises DataError where there is none."""
    tables(root, args.get("train_split", "train"))
    return Path(root or "").expanduser()


def tables(root: str | None, train_split: str) -> Tables:
    """By split, its pictures. Raises DataError."""
    place = Path(root or "").expanduser()
    folders = _folders(place)
    if root is None or not folders:
        raise DataError(
            f"data.root={root} {'holds no data set' if place.is_dir() else 'is no folder'}: expected pictures in "
            "SPLIT/CLASS/* or CLASS/*, for data.name=hub also a folder of save_to_disk or parquet files named after "
            "their split; where a table has the paths and the labels, use data.name=table"
        )
    if not _folders(folders.get(train_split)):
        like = [name for name in folders if name.lower() in _SPLITS]
        if like and (len(like) > 1 or len(folders) == 1 or _folders(folders[like[0]])):  # else a class of that name
            raise DataError(
                f"{root}: {', '.join(like)} look like splits: they need a folder for each class, and are named by "
                "data.args.train_split, val_split and test_split; where a table has the labels, use data.name=table"
            )
        folders = {"train": place}
    return {name: partial(_table, folder) for name, folder in folders.items()}


def _folders(place: Path | None) -> dict[str, Path]:
    paths = sorted(place.iterdir()) if place and place.is_dir() else ()
    return {path.name: path for path in paths if path.is_dir() and not is_hidden(path.name)}


def _table(folder: Path) -> Table:
    """The pictures' paths; labels are the names of the folders of classes. Raises DataError."""
    import pyarrow as pa
    import pyarrow.dataset as pads

    passed: list[str] = []
    files = list(files_below(folder, picture_suffixes(), passed))
    paths = [path for path, *_ in files]
    parts = [path[len(str(folder)) + 1 :].split("/") for path in paths]
    labels = [part[0] for part in parts if len(part) > 1]
    if len(labels) < len(parts) or not parts:
        raise DataError(
            f"{folder}: {len(labels):,} of {len(parts):,} pictures lie in folders of classes (CLASS/*): move them, "
            "use data.name=table where a table has the labels, or leave the split out with data.args.test_split=null"
        )
    passed += [str(path) for name, path in _folders(folder).items() if name not in labels]
    features = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "string"}}
    return Table(str(folder), features, pads.dataset(pa.table({"image": paths, "label": labels})), files, passed)
