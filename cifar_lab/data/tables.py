"""Tables with a picture and a label column, as `datasets` lays them out: which columns, which classes; no torch."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_lab.data.cache import SPLITS
from cifar_lab.data.decoding import Pictures
from cifar_lab.data.on_disk import File, files_below, stamp
from cifar_lab.data.raw import DataError, RawSplit

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pads

logger = logging.getLogger("cifar_lab")

_LABEL_NAMES = ("label", "labels", "class", "target")


@dataclass(frozen=True)
class Table:
    """One split: `features` as in `datasets.Features.to_dict()`; columns are read when asked for.

    `files` are those that it lies in, and those that its pictures' paths lead to; `passed` what was passed over there.
    """

    name: str
    features: Mapping[str, Any]
    data: pads.Dataset
    files: Sequence[File] = ()
    passed: Sequence[str] = ()

    def column(self, key: str) -> pa.ChunkedArray:
        """One column. Raises DataError for a damaged file."""
        try:
            return self.data.to_table(columns=[key]).column(0)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name}: column {key!r} cannot be read ({error}): fetch it again") from error

    def names_of(self, key: str) -> list[str] | None:
        """What the integers of a ClassLabel mean."""
        names = self.features[key].get("names")
        return names and [unicodedata.normalize("NFC", name) for name in names]

    def of_type(self, kind: str) -> list[str]:
        """The columns of a type of `datasets`."""
        return [key for key, value in self.features.items() if isinstance(value, dict) and value.get("_type") == kind]


Tables = Mapping[str, Callable[[], Table]]  # by split, opened when they are needed


def find_tables(root: Path, config: str | None = None, kinds: tuple[str, ...] = (".parquet",)) -> Tables:
    """The tables below `root`: `train-*.parquet`, `train.parquet`, `train/*.parquet`, `train/metadata.csv`."""
    files: dict[str, dict[Path, list[File]]] = {}
    for file in files_below(root, kinds):
        path = Path(file[0])
        split, folder = path.stem.split("-")[0], path.parent
        # The hub's own conversion writes CONFIG/SPLIT/0000.parquet; `datasets` reads metadata.csv beside pictures.
        if split.isdigit() or split == "metadata":
            split, folder = ("train", root) if folder == root else (folder.name, folder.parent)
        if config is None or config in folder.relative_to(root).parts or folder == root:
            files.setdefault(split, {}).setdefault(folder, []).append(file)
    for split, folders in files.items():
        if len(folders) > 1:
            names = ", ".join(str(folder.relative_to(root)) for folder in folders)
            raise DataError(f"{root} holds several tables for the split {split!r} ({names}): name one of them")
    found = {split: read for split, folders in files.items() for read in folders.values()}
    return {split: partial(open_table, f"{root} ({split})", read) for split, read in found.items()}


def open_table(name: str, files: Sequence[File]) -> Table:
    """The parquet or csv files of one split. Raises DataError."""
    import pyarrow as pa
    import pyarrow.dataset as pads
    from pyarrow.csv import read_csv

    paths = [path for path, *_ in files]
    try:
        if paths[0].lower().endswith(".csv"):
            data = pads.dataset(pa.concat_tables(map(read_csv, paths), promote_options="permissive"))
            if any(pa.types.is_binary(kind) for kind in data.schema.types):
                raise ValueError("it is not UTF-8")
        else:
            data = pads.dataset(paths, format="parquet")
    except (OSError, ValueError) as error:
        raise DataError(f"{name} is not readable ({error}): correct it, or fetch it again") from error
    return Table(name, _features(data.schema), data, files)


def key_of(place: str | Path, tables: Tables, args: Mapping[str, Any]) -> str:
    """A source's key: the place, its arguments, and the stamp of the files of the splits that these name."""
    about = " ".join(f"{name}={value!r}" for name, value in sorted(args.items()))
    names = [args.get("train_split", "train"), args.get("val_split"), args.get("test_split", "test")]
    opened = [tables[name]() for name in filter(None, names) if name in tables]
    if passed := [path for table in opened for path in table.passed]:
        logger.info("%s: %d passed over, hidden or without pictures: %s", place, len(passed), ", ".join(passed[:5]))
    return f"{place} {about}\n{stamp(file for table in opened for file in table.files)}"


def read_split(split: str, tables: Tables, place: object, names: Sequence[str | None], **how: Any) -> RawSplit | None:
    """`split` of `tables`, by the `names` of the training, validation and test split; None where there is none.

    `how` goes to `to_raw`. Raises DataError for one that is not there, but for the test split's default.
    """
    given = [name for name in names if name is not None]
    if len(set(given)) < len(given):
        raise DataError(f"data.args.train_split, val_split and test_split are {', '.join(given)}: they must differ")
    for key, name in zip(SPLITS, names, strict=True):
        if key in ("train", split) and name in given and name not in tables and (key, name) != ("test", "test"):
            there = ", ".join(sorted(tables))
            raise DataError(f"{place} has no split {name!r}; data.args.{key}_split can be: {there}")
    if split == "train" and (others := sorted(set(tables) - set(given))):
        logger.info("%s: not used: %s (data.args.val_split and test_split name splits)", place, ", ".join(others))
    train, wanted = (tables.get(names[SPLITS.index(key)] or "") for key in ("train", split))
    if wanted is None or train is None:
        return None
    opened = train()
    return to_raw(opened if wanted is train else wanted(), opened, **how)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """From the metadata that `datasets` writes, else from the arrow types."""
    import pyarrow as pa

    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    for field in schema:
        if field.name not in described:
            picture = pa.types.is_binary(field.type) or (
                pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
            )
            described[field.name] = {"_type": "Image"} if picture else {"_type": "Value", "dtype": str(field.type)}
    return dict(described)


def to_raw(
    table: Table, train: Table, *, images: str | None = None, labels: str | None = None, **decoding: Any
) -> RawSplit:
    """`table` as a RawSplit whose classes are those of `train`; labels are matched by their names.

    The columns are those named, else the only one of pictures, and for labels the only ClassLabel, else one with a
    usual name, else the only one of integers or text. `decoding` is for Pictures. Raises DataError for labels that are
    missing or new.
    """
    plain = [key for key in train.of_type("Value") if _can_be_label(train.features[key]["dtype"])]
    found = train.of_type("ClassLabel") or [key for key in plain if key in _LABEL_NAMES] or plain
    key = one_of(train, found, labels, "label_column")
    classes = train.names_of(key)
    if classes is None:
        known = {*map(_label, train.column(key).to_pylist())} - {None}
        classes = [str(value) for value in sorted(known - {-1} if {-1, 0} <= known else known)]
    names = _label_names(table, one_of(table, [], key, "label_column"), train.names_of(key))
    indices = {name: i for i, name in enumerate(classes)}
    strange = [name for name in names if name not in indices]
    if strange:
        new = ", ".join(map(repr, sorted(set(strange), key=str)[:5]))
        raise DataError(
            f"{table.name}: {len(strange)} of {len(names)} pictures have a label in {key!r} that is not among the "
            f"training split's {len(classes)}, such as {new} (None and -1 mean unlabelled): label them, or "
            "name another split with data.args.train_split or data.args.test_split (null: none)"
        )
    cells = table.column(one_of(table, table.of_type("Image"), images, "image_column"))
    return RawSplit(
        Pictures(cells, table.name, **decoding), np.array([indices[name] for name in names], np.int64), tuple(classes)
    )


def _label_names(table: Table, key: str, names: Sequence[str] | None) -> list[Any]:
    """Labels as names: an integer is a place in the table's own list, else in `names`, else its digits."""
    values, own = [*map(_label, table.column(key).to_pylist())], table.names_of(key)
    if own is None and names is None:
        return [value if value is None else str(value) for value in values]
    by_place = dict(enumerate(own or names or ()))
    shifted = [name for place, name in by_place.items() if name.isdecimal() and name != str(place)]
    if own is None and shifted and any(isinstance(value, int) for value in values):
        raise DataError(
            f"{table.name}: whether 1 in {key!r} is the class '1' or the second of {', '.join(by_place.values())} "
            "is not clear: write the names of the labels into its features (ClassLabel)"
        )
    return [by_place.get(value, value) for value in values]


def _label(value: Any) -> Any:
    """Text in one form of Unicode; integers, also of a column that gaps made one of floats; None is no label."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value) or None
    return value if not isinstance(value, float) else int(value) if value.is_integer() else None


def _can_be_label(dtype: str) -> bool:
    return dtype in {"string", "large_string", "bool"} or dtype.startswith(("int", "uint"))


def one_of(table: Table, found: Sequence[str], wanted: str | None, argument: str) -> str:
    """The column that was named, else the only one `found`. Raises DataError."""
    known = ", ".join(table.features)
    if wanted is not None and wanted not in table.features:
        raise DataError(f"{table.name} has no column {wanted!r}; data.args.{argument} can be: {known}")
    if wanted is None and len(found) != 1:
        what = f"several could be it ({', '.join(found)})" if found else f"none is evident among {known}"
        raise DataError(f"{table.name}: which column? {what}: name it with data.args.{argument}=")
    return wanted or found[0]
