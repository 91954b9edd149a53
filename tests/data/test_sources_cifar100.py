"""CIFAR-100 with fine and coarse labels, from every form that is accepted."""

from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cifar_files import encode, python2_pickle
from torchvision.datasets import CIFAR100

from cifar_lab.data.raw import DataError, SourceInfo
from cifar_lab.data.sources import cifar10, cifar100

FINE, COARSE = ([f"{kind}{i:02}" for i in range(count)] for kind, count in (("fine", 100), ("coarse", 20)))
ROWS = 100


def coarse_of(fine: int) -> int:
    return fine * 7 % 20


@pytest.fixture
def classic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The release with a picture a class, and its own md5 table."""
    root = tmp_path / "downloads" / "cifar-100-python"
    root.mkdir(parents=True)
    contents: dict[str, dict[bytes, object]] = {
        "meta": {b"fine_label_names": [n.encode() for n in FINE], b"coarse_label_names": [n.encode() for n in COARSE]}
    }
    for seed, name in enumerate(("train", "test")):
        data = np.random.default_rng(seed).integers(0, 256, (ROWS, 3072), np.uint8)
        labels = list(range(ROWS))
        contents[name] = {b"data": data, b"fine_labels": labels, b"coarse_labels": [*map(coarse_of, labels)]}
    md5 = {}
    for name, content in contents.items():
        (root / name).write_bytes(python2_pickle(content))
        md5[name] = hashlib.md5((root / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    return root


def write_parquet(root: Path) -> Path:
    root.mkdir()
    features = {"img": {"_type": "Image"}}
    features |= {
        f"{n}_label": {"_type": "ClassLabel", "names": names} for n, names in (("fine", FINE), ("coarse", COARSE))
    }
    for split, offset in (("train", 100), ("test", 0)):
        cells = [{"bytes": encode(np.full((32, 32, 3), offset + i, np.uint8)), "path": None} for i in range(ROWS)]
        fine = list(range(ROWS))
        table = pa.table({"img": cells, "fine_label": fine, "coarse_label": [*map(coarse_of, fine)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, root / f"{split}-0.parquet")
    return root


def assert_right(root: Path) -> None:
    for split in ("train", "test"):
        fine, coarse = (cifar100.load(split, root=str(root), labels=labels) for labels in ("fine", "coarse"))
        assert fine is not None and coarse is not None
        assert (fine.classes, coarse.classes) == (tuple(FINE), tuple(COARSE))
        np.testing.assert_array_equal(fine.labels, np.arange(ROWS))
        np.testing.assert_array_equal(coarse.labels, [*map(coarse_of, range(ROWS))])
        np.testing.assert_array_equal(fine.images[:ROWS], coarse.images[:ROWS])
    assert cifar100.load("val", root=str(root)) is None


def test_the_classic_release_and_its_archive(classic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_right(classic)
    assert_right(classic.parent)
    archive = tmp_path / "archives" / "cifar-100-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(classic, "cifar-100-python")
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert_right(archive.parent)


def test_parquet_files(tmp_path: Path) -> None:
    assert_right(write_parquet(tmp_path / "tables"))


def test_sizes_and_keys(classic: Path) -> None:
    assert cifar100.info() == SourceInfo(50_000, 10_000, 100, 32)
    assert cifar100.info(labels="coarse").num_classes == 20
    assert cifar100.cache_key(root=str(classic)) != cifar100.cache_key(root=str(classic), labels="coarse")


def test_one_set_is_not_the_other(classic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (classic, write_parquet(tmp_path / "tables")):
        with pytest.raises(DataError, match=r"holds no CIFAR-10: expected .*cifar-10-batches-py"):
            cifar10.load("train", root=str(root))
    (classic / "meta").rename(classic / "batches.meta")
    with pytest.raises(DataError, match=r"holds no CIFAR-100: expected .*cifar-100-python"):
        cifar100.load("train", root=str(classic))
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"CIFAR-100 was not found: .*uoft-cs/cifar100"):
        cifar100.load("train", root=None)


def test_a_foreign_pickle_is_never_read(classic: Path) -> None:
    (classic / "train").write_bytes(pickle.dumps({"coarse_labels": []}))
    with pytest.raises(DataError, match="cifar-100-python is incomplete, damaged or another file"):
        cifar100.load("train", root=str(classic), labels="coarse")
