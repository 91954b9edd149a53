"""Tables with a picture and a label column, as `datasets` lays them out: which columns, which classes; no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cifar_lab.data.decoding import Pictures
from cifar_lab.data.on_disk import File, files_below
from cifar_lab.data.raw import DataError, RawSplit

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pads

_LABEL_NAMES = ("label", "labels", "class", "target")


@dataclass(frozen=True)
class Table:
    """One split: `features` as in `datasets.Features.to_dict()`; columns are read when asked for."""

    name: str
    features: Mapping[str, Any]
    data: pads.Dataset

    def column(self, key: str) -> pa.ChunkedArray:
        """One column. Raises DataError for a damaged file."""
        try:
            return self.data.to_table(columns=[key]).column(0)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name}: column {key!r} cannot be read ({error}): fetch it again") from error


def parquet_files(root: Path, config: str | None = None) -> dict[str, list[File]]:
    """By split, the parquet files below `root`: `train-*.parquet`, `train.parquet` or `train/*.parquet`."""
    files: dict[str, dict[Path, list[File]]] = {}
    for file in files_below(root, (".parquet",)):
        path = Path(file[0])
        stem = path.stem.split("-")[0]
        in_split_folder = stem.isdigit()  # the hub's own conversion writes CONFIG/SPLIT/0000.parquet
        split, folder = (path.parent.name, path.parent.parent) if in_split_folder else (stem, path.parent)
        if config is None or config in folder.relative_to(root).parts or folder == root:
            files.setdefault(split, {}).setdefault(folder, []).append(file)
    for split, folders in files.items():
        if len(folders) > 1:
            names = ", ".join(str(folder.relative_to(root)) for folder in folders)
            raise DataError(f"{root} holds several tables for the split {split!r} ({names}): name one of them")
    return {split: found for split, folders in files.items() for found in folders.values()}


def parquet_splits(root: Path, config: str | None = None) -> dict[str, Table]:
    """The splits of `parquet_files`, opened."""
    return {split: _parquet_table(f"{root} ({split})", files) for split, files in parquet_files(root, config).items()}


def _parquet_table(name: str, files: Sequence[File]) -> Table:
    import pyarrow.dataset as pads

    try:
        data = pads.dataset([path for path, *_ in files], format="parquet")
    except (OSError, ValueError) as error:
        raise DataError(f"{name} is not readable ({error}): fetch it again") from error
    return Table(name, _features(data.schema), data)


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


def picture_files(root: Path) -> dict[str, list[File]]:
    """By split, the pictures `SPLIT/CLASS/*` below `root`."""
    suffixes = tuple(Image.registered_extensions())
    splits = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    files = {split.name: list(files_below(split, suffixes, depth=1)) for split in splits}
    return {split: found for split, found in files.items() if found}


def folder_splits(root: Path) -> dict[str, Table]:
    """A table for each split of `picture_files`; labels are the class folders' names."""
    import pyarrow as pa
    import pyarrow.dataset as pads

    features = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "string"}}
    tables = {}
    for split, files in picture_files(root).items():
        paths = [path for path, *_ in files]
        columns = {"image": paths, "label": [path.split(os.sep)[-2] for path in paths]}
        tables[split] = Table(str(root / split), features, pads.dataset(pa.table(columns)))
    return tables


def to_raw(
    table: Table, train: Table, *, images: str | None = None, labels: str | None = None, size: int | None = None
) -> RawSplit:
    """`table` as a RawSplit whose classes are those of `train`; labels are matched by their names.

    The columns are those named, else the only one of pictures, and for labels the only ClassLabel, else one with a
    usual name, else the only one of integers or text. Raises DataError for labels that are missing or new.
    """
    plain = [key for key in _of_type(train, "Value") if _can_be_label(train.features[key]["dtype"])]
    found = _of_type(train, "ClassLabel") or [key for key in plain if key in _LABEL_NAMES] or plain
    key = _one_column(train, found, labels, "label_column")
    classes = train.features[key].get("names")
    if classes is None:
        classes = [str(value) for value in sorted(set(train.column(key).to_pylist()) - {None})]
    names = _label_names(table, _one_column(table, [], key, "label_column"), train.features[key].get("names"))
    indices = {name: i for i, name in enumerate(classes)}
    strange = [name for name in names if name not in indices]
    if strange:
        new = ", ".join(map(repr, sorted(set(strange), key=str)[:5]))
        raise DataError(
            f"{table.name}: {len(strange)} of {len(names)} pictures have a label in {key!r} that is not among the "
            f"training split's {len(classes)}, such as {new} (None and -1 mean unlabelled): choose a labelled "
            "split with data.args.train_split or data.args.test_split"
        )
    cells = table.column(_one_column(table, _of_type(table, "Image"), images, "image_column"))
    return RawSplit(
        Pictures(cells, table.name, size), np.array([indices[name] for name in names], np.int64), tuple(classes)
    )


def _label_names(table: Table, key: str, names: Sequence[str] | None) -> list[Any]:
    """Labels as names: an integer is a place in the table's own list, else in `names`, else its digits."""
    values, own = table.column(key).to_pylist(), table.features[key].get("names")
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


def _of_type(table: Table, kind: str) -> list[str]:
    return [key for key, value in table.features.items() if isinstance(value, dict) and value.get("_type") == kind]


def _can_be_label(dtype: str) -> bool:
    return dtype in {"string", "large_string", "bool"} or dtype.startswith(("int", "uint"))


def _one_column(table: Table, found: Sequence[str], wanted: str | None, argument: str) -> str:
    known = ", ".join(table.features)
    if wanted is not None and wanted not in table.features:
        raise DataError(f"{table.name} has no column {wanted!r}; data.args.{argument} can be: {known}")
    if wanted is None and len(found) != 1:
        what = f"several could be it ({', '.join(found)})" if found else f"none is evident among {known}"
        raise DataError(f"{table.name}: which column? {what}: name it with data.args.{argument}=")
    return wanted or found[0]
