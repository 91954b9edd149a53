"""Any image-classification data set that `datasets` can load, from the hub or from a copy at `data.root`.

A copy is a folder written by `save_to_disk`, a folder of parquet files, or folders of pictures `SPLIT/CLASS/*`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cifar_lab.data.arguments import ImageColumn, LabelColumn, Size, TestSplit, TrainSplit, ValSplit
from cifar_lab.data.on_disk import files_below, stamp
from cifar_lab.data.raw import DataError, RawSplit, SourceInfo
from cifar_lab.data.tables import Table, folder_splits, parquet_files, parquet_splits, picture_files, to_raw


def load(
    split: str,
    *,
    root: str | None,
    id: Annotated[str, Field(description="Name of the data set on the hub (owner/name), or a folder.")],
    config: Annotated[str | None, Field(description="Configuration of the data set, where it has several.")] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    train_split: TrainSplit = "train",
    val_split: ValSplit = None,
    test_split: TestSplit = "test",
    size: Size = None,
) -> RawSplit | None:
    """`split` of the data set `id`.

    Raises DataError for what is missing or ambiguous, naming the argument to set.
    """
    names = {"train": train_split, "val": val_split, "test": test_split}
    if len({*names.values()} - {None}) < len([name for name in names.values() if name]):
        raise DataError(f"data.args.train_split, val_split and test_split are {[*names.values()]}: they must differ")
    if (name := names[split]) is None:
        return None
    place = find(root, id=id, config=config, **{f"{key}_split": value for key, value in names.items()})
    tables = _splits_in(place, config) if place else {}
    if not root and not {train_split, test_split} - {None} <= tables.keys():
        tables = _hub_splits(id, config)  # which knows more forms of folders, but follows no links
    _check_splits(root or id, tables, train_split, val_split, test_split)
    if name not in tables:  # the test split, which nobody named
        return None
    return to_raw(tables[name], tables[train_split], images=image_column, labels=label_column, size=size)


def cache_key(*, root: str | None, **args: Any) -> str:
    """Place and arguments, with the stamp of what is read of a folder; a change on the hub itself is not seen."""
    about = " ".join(f"{name}={value!r}" for name, value in sorted(args.items()))
    place = Path(root or args["id"]).expanduser().resolve()
    if not place.is_dir():
        return f"{root or 'hub'} {about}"
    if _is_saved(place):
        return f"{place} {about}\n{stamp(files_below(place, ('.arrow', '.json')))}"
    splits = args.get("train_split", "train"), args.get("val_split"), args.get("test_split", "test")
    found = parquet_files(place, args.get("config")) or picture_files(place)
    read = [file for split in splits if split for file in found.get(split, ())]
    by_datasets = not root and not {splits[0], splits[2]} - {None} <= found.keys()  # in its own way
    return f"{place} {about}\n{stamp(files_below(place) if by_datasets else read)}"


def info(**args: object) -> SourceInfo | None:
    """Unknown without asking the hub."""
    return None


def find(root: str | None, **args: Any) -> Path | None:
    """The folder with a copy, by the names of its files; None: only the hub is left. Raises DataError."""
    place = Path(root or args["id"]).expanduser()
    if not root or _is_saved(place):
        return place if place.is_dir() else None
    if not place.is_dir():
        raise DataError(f"data.root={root} is no folder: it must hold a copy of {args['id']!r}, or leave it out")
    found = parquet_files(place, args.get("config")) or picture_files(place)
    if not found:
        raise DataError(
            f"data.root={root} holds no data set: expected a folder written by save_to_disk, parquet files named after "
            "their split, or pictures in SPLIT/CLASS/"
        )
    _check_splits(root, found, **args)
    return place


def _check_splits(
    place: str,
    found: Collection[str],
    train_split: str = "train",
    val_split: str | None = None,
    test_split: str | None = "test",
    **others: object,
) -> None:
    for argument, name in (("train_split", train_split), ("val_split", val_split), ("test_split", test_split)):
        if name is not None and name not in found and (name, argument) != ("test", "test_split"):
            raise DataError(f"{place} has no split {name!r}; data.args.{argument} can be: {', '.join(sorted(found))}")


def _is_saved(root: Path) -> bool:
    return (root / "dataset_dict.json").is_file() or (root / "state.json").is_file()


def _hub_splits(id: str, config: str | None) -> dict[str, Table]:
    from cifar_lab.data.hub_access import hub_splits

    try:
        return hub_splits(id, config)
    except DataError as error:
        raise DataError(f"{error}. Check data.args.id and data.args.config, or set data.root to a copy") from error


def _splits_in(folder: Path, config: str | None) -> dict[str, Table]:
    """Of a copy; empty where there is none."""
    if _is_saved(folder):
        from cifar_lab.data.hub_access import saved_splits

        return saved_splits(folder)
    return parquet_splits(folder, config) or folder_splits(folder)
