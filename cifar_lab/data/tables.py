"""Tables with a picture and a label column, as `datasets` lays them out: which columns, which classes; no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cifar_lab.data.pictures import Pictures
from cifar_lab.data.raw import DataError, RawSplit

if TYPE_CHECKING:
    import pyarrow as pa

_LABEL_NAMES = ("label", "labels", "class", "target")


@dataclass(frozen=True)
class Table:
    """One split: `features` as in `datasets.Features.to_dict()`, columns read when asked for."""

    name: str
    features: Mapping[str, Any]
    column: Callable[[str], pa.ChunkedArray]


def parquet_splits(root: Path, config: str | None = None) -> dict[str, Table]:
    """The splits of the parquet files below `root`: `train-*.parquet`, `train.parquet` or `train/*.parquet`."""
    files: dict[str, dict[Path, list[Path]]] = {}
    for path in sorted(root.rglob("*.parquet")):
        stem = path.stem.split("-")[0]
        in_split_folder = stem.isdigit()  # the hub's own conversion writes CONFIG/SPLIT/0000.parquet
        split, folder = (path.parent.name, path.parent.parent) if in_split_folder else (stem, path.parent)
        if config is None or config in folder.relative_to(root).parts or folder == root:
            files.setdefault(split, {}).setdefault(folder, []).append(path)
    for split, folders in files.items():
        if len(folders) > 1:
            names = ", ".join(str(folder.relative_to(root)) for folder in folders)
            raise DataError(f"{root} holds several tables for the split {split!r} ({names}): name one of them")
    return {split: _parquet_table(f"{root} ({split})", *folders.values()) for split, folders in files.items()}


def _parquet_table(name: str, files: Sequence[Path]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(files[0])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{files[0]} is no readable parquet file ({error}): fetch it again") from error

    def column(wanted: str) -> pa.ChunkedArray:
        parts = []
        for file in files:
            try:
                parts += pq.read_table(file, columns=[wanted]).column(0).chunks
            except (pa.ArrowException, OSError, IndexError) as error:
                raise DataError(f"{file}: column {wanted!r} cannot be read ({error}): fetch it again") from error
        return pa.chunked_array(parts, type=schema.field(wanted).type)

    return Table(name, _features(schema), column)


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


def folder_splits(root: Path) -> dict[str, Table]:
    """One table for each folder of `root` that holds folders of pictures; labels are the class folders' names."""
    found = ((folder.name, _class_pictures(folder)) for folder in sorted(root.iterdir()) if folder.is_dir())
    return {split: _folder_table(f"{root / split}", pictures) for split, pictures in found if pictures}


def _class_pictures(split: Path) -> list[Path]:
    suffixes = Image.registered_extensions().keys()
    classes = (folder for folder in sorted(split.iterdir()) if folder.is_dir())
    return [path for folder in classes for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]


def _folder_table(name: str, pictures: list[Path]) -> Table:
    def column(wanted: str) -> pa.ChunkedArray:
        import pyarrow as pa

        cells = [str(path) if wanted == "image" else path.parent.name for path in pictures]
        return pa.chunked_array([cells], type=pa.string())

    return Table(name, {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "string"}}, column)


def image_column(table: Table, wanted: str | None) -> str:
    """`wanted`, else the only column of pictures."""
    found = [key for key, feature in table.features.items() if _is(feature, "Image")]
    return _one_column(table, found, wanted, "image_column")


def label_column(table: Table, wanted: str | None) -> str:
    """`wanted`, else the only ClassLabel column, else one with a usual name, else the only one of integers or text."""
    found = [key for key, feature in table.features.items() if _is(feature, "ClassLabel")]
    plain = [key for key, feature in table.features.items() if _is(feature, "Value") and _is_label(feature["dtype"])]
    found = found or [key for key in plain if key in _LABEL_NAMES] or plain
    return _one_column(table, found, wanted, "label_column")


def _is(feature: Any, kind: str) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == kind


def _is_label(dtype: str) -> bool:
    return dtype in {"string", "large_string", "bool"} or dtype.startswith(("int", "uint"))


def _one_column(table: Table, found: Sequence[str], wanted: str | None, argument: str) -> str:
    if wanted is not None and wanted not in table.features:
        raise DataError(f"{table.name} has no column {wanted!r}; data.args.{argument} can be: {_list(table.features)}")
    if wanted is None and len(found) != 1:
        what = f"several could be it ({_list(found)})" if found else f"none is evident among {_list(table.features)}"
        raise DataError(f"{table.name}: which column? {what}: name it with data.args.{argument}=")
    return wanted or found[0]


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def to_raw(
    table: Table, train: Table, *, images: str | None = None, labels: str | None = None, size: int | None = None
) -> RawSplit:
    """`table` as a RawSplit whose classes are those of `train`. Raises DataError for labels that are missing or new."""
    key = label_column(table, labels)
    values = table.column(key).to_pylist()
    names = train.features.get(key, {}).get("names")
    if names is None:
        known = sorted({value for value in train.column(key).to_pylist() if value is not None})
        classes = tuple(str(value) for value in known)
    else:
        known, classes = list(range(len(names))), tuple(names)
    indices = {value: i for i, value in enumerate(known)}
    unlabelled = sum(value is None or value == -1 for value in values)
    if unlabelled:
        raise DataError(
            f"{table.name}: {unlabelled} of {len(values)} pictures have no label in {key!r} (empty or -1): "
            "choose a labelled split with data.args.train_split or data.args.test_split"
        )
    strange = [value for value in values if value not in indices]
    if strange:
        raise DataError(f"{table.name}: the label {strange[0]!r} is not among the training split's {len(classes)}")
    pictures = _pictures(table, image_column(table, images), size)
    return RawSplit(pictures, np.array([indices[value] for value in values], np.int64), classes)


def _pictures(table: Table, key: str, size: int | None) -> Pictures:
    cells = table.column(key)

    def read(start: int, stop: int) -> list[bytes | Path]:
        found = cells.slice(start, stop - start).to_pylist()
        return [_encoded(table.name, start + i, cell) for i, cell in enumerate(found)]

    return Pictures(read, len(cells), name=table.name, size=size)


def _encoded(name: str, index: int, cell: Any) -> bytes | Path:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        cell = Path(cell)
    if not isinstance(cell, bytes | Path):
        raise DataError(f"{name}: picture {index} is missing ({cell!r})")
    return cell
