"""CIFAR-10 from every form and place that is accepted, and what damaged ones say."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cifar_files import encode, python2_pickle
from torchvision.datasets import CIFAR10

from cifar_lab.data.cifar import CLASSES
from cifar_lab.data.hub_access import hub_is_reachable
from cifar_lab.data.raw import DataError
from cifar_lab.data.sources import cifar10

ROWS = 10
FOLDER = "cifar-10-batches-py"
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def batch_rows(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (ROWS, 3072), np.uint8)


@pytest.fixture
def no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither CIFAR_LAB_DATA nor ./data."""
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_place: None) -> Path:
    """A folder in the official format, ten pictures a batch, with its own md5 table."""
    folder = tmp_path / "downloads" / FOLDER
    folder.mkdir(parents=True)
    contents = {"batches.meta": {b"label_names": [name.encode() for name in CLASSES]}}
    for i, name in enumerate([*TRAIN, "test_batch"]):
        contents[name] = {b"data": batch_rows(i), b"labels": list(range(ROWS)), b"batch_label": b"a batch"}
    md5 = {}
    for name, content in contents.items():
        data = python2_pickle(content)
        (folder / name).write_bytes(data)
        md5[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in TRAIN])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    return folder


@pytest.fixture
def archive(batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "archives" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(batches, FOLDER)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


def write_parquet(folder: Path, column: str = "img", classes: tuple[str, ...] | None = CLASSES) -> Path:
    """Ten training and ten test pictures; the pixels of test picture i are all i."""
    folder.mkdir(parents=True)
    for split, offset in (("train", 100), ("test", 0)):
        pictures = [{"bytes": encode(np.full((32, 32, 3), offset + i, np.uint8)), "path": None} for i in range(ROWS)]
        table = pa.table({column: pictures, "label": list(range(ROWS))})
        if classes is not None:
            features = {column: {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
            info = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": info})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_the_classic_folder_is_read_in_order(batches: Path) -> None:
    train, test = (cifar10.load(split, root=str(batches.parent)) for split in ("train", "test"))
    assert train.images.shape == (5 * ROWS, 32, 32, 3)
    assert test.classes == CLASSES
    expected = np.concatenate([batch_rows(i) for i in range(5)]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(train.images[:50].transpose(0, 3, 1, 2), expected)
    np.testing.assert_array_equal(test.images[:10].transpose(0, 3, 1, 2), batch_rows(5).reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(train.labels, np.tile(np.arange(10), 5))


@pytest.mark.parametrize("root", [lambda path: path, lambda path: path.parent], ids=["file", "folder"])
def test_the_archive_holds_the_same(archive: Path, batches: Path, root: Callable[[Path], Path]) -> None:
    for split in ("train", "test"):
        packed, plain = (cifar10.load(split, root=str(place)) for place in (root(archive), batches))
        np.testing.assert_array_equal(packed.images[:ROWS], plain.images[:ROWS])


@pytest.mark.parametrize(("column", "classes"), [("img", CLASSES), ("image", CLASSES), ("img", None)])
def test_parquet_files_at_any_depth(tmp_path: Path, column: str, classes: tuple[str, ...] | None) -> None:
    write_parquet(tmp_path / "a" / "b" / "plain_text", column, classes)
    raw = cifar10.load("test", root=str(tmp_path / "a"))
    assert raw.classes == CLASSES
    np.testing.assert_array_equal(raw.images[:ROWS][:, 0, 0, 0], np.arange(ROWS))


def test_places_are_tried_in_order(batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = write_parquet(tmp_path / "elsewhere" / "data")
    assert cifar10.find(None).resolve() == here
    monkeypatch.setenv("CIFAR_LAB_DATA", str(batches))
    assert cifar10.find(None) == batches
    named = write_parquet(tmp_path / "named")
    assert cifar10.find(str(named)) == named


def test_the_key_follows_the_files(batches: Path, archive: Path, tmp_path: Path) -> None:
    assert cifar10.cache_key(root=str(batches.parent)) == cifar10.cache_key(root=str(batches))
    tables = write_parquet(tmp_path / "tables")
    for root, file in ((batches, "test_batch"), (archive, ""), (tables, "test-00000-of-00001.parquet")):
        before = cifar10.cache_key(root=str(root))
        os.utime(root / file, ns=(1, (root / file).stat().st_mtime_ns + 1))
        assert cifar10.cache_key(root=str(root)) != before


@pytest.mark.parametrize("name", ["data.root", "CIFAR_LAB_DATA"])
def test_a_named_place_must_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, no_place: None) -> None:
    other = write_parquet(tmp_path / "cifar3", classes=("a", "b", "c"))
    for place, reason in ((other, "holds no CIFAR-10"), (tmp_path / "typo", "does not exist")):
        monkeypatch.setenv("CIFAR_LAB_DATA", str(place))
        with pytest.raises(DataError, match=rf"{name}=.*{place.name} {reason}"):
            cifar10.load("train", root=str(place) if name == "data.root" else None)


def test_nothing_found_says_where_and_what_to_do(tmp_path: Path, no_place: None) -> None:
    write_parquet(tmp_path / "elsewhere" / "data", classes=("a", "b", "c"))  # ./data may be something else's
    with pytest.raises(DataError, match="CIFAR_LAB_DATA are not set") as error:
        cifar10.load("train", root=None)
    for part in ("data.root", str(tmp_path / "elsewhere" / "data"), "uoft-cs/cifar10", "data.name=shapes"):
        assert part in str(error.value)


def test_a_foreign_pickle_is_never_read(batches: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (batches / "test_batch").write_bytes(pickle.dumps({"data": Attack(), "labels": []}))
    with pytest.raises(DataError, match="cifar-10-batches-py is incomplete, damaged or another file"):
        cifar10.load("test", root=str(batches))
    assert not (tmp_path / "executed").exists()


def test_a_damaged_or_missing_batch_is_said(batches: Path) -> None:
    data = bytearray((batches / "data_batch_3").read_bytes())
    data[-100] ^= 1
    for damage in (lambda: (batches / "data_batch_3").write_bytes(data), (batches / "data_batch_3").unlink):
        damage()
        with pytest.raises(DataError, match=r"incomplete, damaged .* fetch CIFAR-10 again"):
            cifar10.load("train", root=str(batches))


def test_a_truncated_archive_is_named(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=r"tar\.gz is incomplete"):
        cifar10.load("train", root=str(archive))


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "p") / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet.*fetch it again"):
        cifar10.load("train", root=str(tmp_path))


def test_a_silent_network_is_noticed_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert not hub_is_reachable(timeout=0.5)


def test_an_answer_of_any_kind_is_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    from huggingface_hub import constants

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert hub_is_reachable()
        server.shutdown()
