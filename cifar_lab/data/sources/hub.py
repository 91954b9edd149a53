"""Any image-classification data set that `datasets` can load, from the hub or from a copy at `data.root`.

A copy is a folder written by `save_to_disk`, a folder of parquet files, or folders of pictures `SPLIT/CLASS/*`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cifar_lab.data.raw import DataError, RawSplit, SourceInfo
from cifar_lab.data.tables import Table, folder_splits, parquet_splits, to_raw
from cifar_lab.recipe.schema import PositiveInt


def load(
    split: str,
    *,
    root: str | None,
    id: str,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    size: PositiveInt | None = None,
) -> RawSplit:
    """`split` of the data set `id`.

    Columns are found by their type unless named. `size` resizes the shorter side and keeps the centre square; it is
    needed when pictures differ in size. Raises DataError for what is missing or ambiguous, naming the argument to set.
    """
    if train_split == test_split:
        raise DataError(f"data.args.train_split and data.args.test_split are both {train_split!r}: they must differ")
    tables = _copied_splits(id, Path(root).expanduser(), config) if root else _hub_splits(id, config)
    for argument, name in (("train_split", train_split), ("test_split", test_split)):
        if name not in tables:
            raise DataError(
                f"{root or id} has no split {name!r}; data.args.{argument} can be: {', '.join(sorted(tables))}"
            )
    wanted = tables[train_split if split == "train" else test_split]
    return to_raw(wanted, tables[train_split], images=image_column, labels=label_column, size=size)


def cache_key(*, root: str | None, **args: object) -> str:
    """The arguments, and of a copy its folders and files; a change on the hub itself is not seen."""
    return "\n".join([str(sorted(args.items())), *(_stamps(Path(root).expanduser()) if root else ())])


def info(**args: object) -> SourceInfo | None:
    """Unknown without asking the hub."""
    return None


def _stamps(root: Path) -> Iterator[str]:
    """Tables by size and time; pictures only through the times of their folders, since there may be a million."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        tables = [name for name in sorted(files) if name.endswith((".parquet", ".arrow", ".json"))]
        for path in (Path(folder), *(Path(folder, name) for name in tables)):
            stat = path.stat()
            yield f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _hub_splits(id: str, config: str | None) -> dict[str, Table]:
    from cifar_lab.data.hub_access import hub_splits

    try:
        return hub_splits(id, config)
    except DataError as error:
        raise DataError(f"{error}. Check data.args.id and data.args.config, or set data.root to a copy") from error


def _copied_splits(id: str, root: Path, config: str | None) -> dict[str, Table]:
    if not root.is_dir():
        raise DataError(f"data.root={root} is no folder: it must hold a copy of {id!r}, or leave it out to use the hub")
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        from cifar_lab.data.hub_access import saved_splits

        return saved_splits(root)
    tables = parquet_splits(root, config) or folder_splits(root)
    if not tables:
        raise DataError(
            f"data.root={root} holds no data set: expected a folder written by save_to_disk, parquet files named after "
            "their split, or pictures in SPLIT/CLASS/"
        )
    return tables
