"""Pictures in folders `SPLIT/CLASS/*`; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cifar_lab.data.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa


def folder_splits(root: Path) -> dict[str, Table]:
    """One table for each folder of `root` that holds folders of pictures; labels are the class folders' names."""
    found = ((folder.name, _pictures(folder)) for folder in sorted(root.iterdir()) if folder.is_dir())
    return {split: _folder_table(f"{root / split}", pictures) for split, pictures in found if pictures}


def _pictures(split: Path) -> list[Path]:
    suffixes = Image.registered_extensions().keys()
    classes = (folder for folder in sorted(split.iterdir()) if folder.is_dir())
    return [path for folder in classes for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]


def _folder_table(name: str, pictures: list[Path]) -> Table:
    def column(wanted: str) -> pa.ChunkedArray:
        import pyarrow as pa

        cells = [str(path) if wanted == "image" else path.parent.name for path in pictures]
        return pa.chunked_array([cells], type=pa.string())

    return Table(name, {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "string"}}, column)
