"""Which splits a source says that it has."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_lab.data.images import load_images
from cifar_lab.data.raw import DataError
from cifar_lab.data.sources import hub


def encoded(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8), grey).save(out, "PNG")
    return out.getvalue()


def test_splits_that_a_set_has_not(tmp_path: Path) -> None:
    """They are None, unless somebody named them."""
    pq.write_table(pa.table({"image": [encoded(1), encoded(2)], "label": [0, 1]}), tmp_path / "train.parquet")
    for args, missing in (({}, {"val", "test"}), ({"val_split": "valid"}, {"test"})):
        loaded = {split: hub.load(split, root=str(tmp_path), id="x", **args) for split in ("train", "val", "test")}
        assert {split for split, raw in loaded.items() if raw is None} == missing
        shutil.copy(tmp_path / "train.parquet", tmp_path / "valid.parquet")
    with pytest.raises(DataError, match=r"no split 'dev'; data\.args\.val_split can be: train, valid"):
        hub.load("val", root=str(tmp_path), id="x", val_split="dev")
    assert load_images("hub", {"id": "x"}, root=str(tmp_path), max_gib=1, cache_dir=tmp_path / "cache").test is None
