"""Tables of pictures (or paths of them) and labels: a csv or parquet file, or a folder with one for each split."""

import os
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cifar_lab.data.arguments import Fit, ImageColumn, LabelColumn, OnBroken, Size, TestSplit, TrainSplit, ValSplit
from cifar_lab.data.on_disk import file_at
from cifar_lab.data.raw import DataError, RawSplit
from cifar_lab.data.tables import Table, Tables, find_tables, key_of, one_of, open_table, read_split

_PATHS = ("file_name", "filename", "file", "path", "filepath", "image_path", "image")


def load(
    split: str,
    *,
    root: str | None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: Annotated[str | None, Field(description="Column of the splits' names, of one table.")] = None,
    folder: Annotated[str | None, Field(description="Where the paths begin; null: where the table lies.")] = None,
    train_split: TrainSplit = "train",
    val_split: ValSplit = None,
    test_split: TestSplit = "test",
    size: Size = None,
    fit: Fit = "crop",
    on_broken: OnBroken = "error",
) -> RawSplit | None:
    """The rows of `split`. Raises DataError for what is missing or ambiguous, naming the argument to set."""
    tables = _tables(root, split_column, image_column, folder)
    names = train_split, val_split, test_split
    how = {"images": image_column, "labels": label_column, "size": size, "fit": fit, "on_broken": on_broken}
    return read_split(split, tables, root, names, **how)


def cache_key(*, root: str | None, **args: Any) -> str:
    """Place and arguments, with the stamp of the tables and of the pictures that they have paths of."""
    tables = _tables(root, *map(args.get, ("split_column", "image_column", "folder")))
    return key_of(Path(root or "").expanduser().absolute(), tables, args)


def find(root: str | None, **args: Any) -> Path:
    """The table or its folder. Raises DataError where there is none."""
    _tables(root, None, None, None)
    return Path(root or "").expanduser()


def _tables(root: str | None, split_column: str | None, image_column: str | None, folder: str | None) -> Tables:
    import pyarrow.dataset as pads

    place = Path(root or "").expanduser().absolute()
    tables: Tables = {}
    if place.is_file():
        tables = {"train": partial(open_table, str(root), [file_at(place)])}
    elif root and place.is_dir():
        tables = find_tables(place, kinds=(".csv", ".parquet"))
    if not tables:
        raise DataError(f"data.root={root} is no csv or parquet file, and no folder with one named after each split")
    if split_column and len(tables) > 1:
        raise DataError(f"data.args.split_column is for one table; {root} holds {', '.join(tables)}: name one of them")
    if split_column:
        whole = next(iter(tables.values()))()
        key = one_of(whole, (), split_column, "split_column")
        rows = {value: whole.data.filter(pads.field(key) == value) for value in whole.column(key).unique().to_pylist()}
        tables = {str(value): partial(replace, whole, name=f"{root} ({value})", data=rows[value]) for value in rows}
    return {name: partial(_with_files, table, image_column, folder) for name, table in tables.items()}


def _with_files(opened: Callable[[], Table], column: str | None, folder: str | None) -> Table:
    """A table with its paths made whole; as it is where it holds the pictures. Raises DataError."""
    import pyarrow as pa
    import pyarrow.dataset as pads

    table = opened()
    text = [key for key in table.of_type("Value") if "string" in table.features[key]["dtype"]]
    usual = [key for key in _PATHS if key in text and not table.of_type("Image")]
    if (key := column or next(iter(usual), None)) not in text:
        return table
    start = Path(table.files[0][0]).parent / Path(folder or "").expanduser()
    paths = table.column(key).to_pylist()
    found = [_find(start, path or "") for path in paths]
    if missing := [str(path) for path, whole in zip(paths, found, strict=True) if whole is None]:
        raise DataError(
            f"{table.name}: {len(missing):,} of {len(paths):,} pictures are not there, such as "
            f"{', '.join(missing[:3])}: paths in {key!r} begin at {start}, or where data.args.folder= says"
        )
    data = table.data.to_table()
    data = data.set_column(data.column_names.index(key), key, pa.array(found))
    features = {**table.features, key: {"_type": "Image"}}
    return Table(table.name, features, pads.dataset(data), [*table.files, *map(file_at, filter(None, found))])


def _find(start: Path, path: str) -> str | None:
    """A file, by the form of Unicode and the separators that the disk has it under."""
    forms = path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path), path.replace("\\", "/")
    return next((str(start / form) for form in forms if os.path.isfile(start / form)), None)
