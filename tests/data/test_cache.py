"""The cache: decoded once, verified, and rebuilt when damaged."""

from __future__ import annotations

import io
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cifar_lab.data.cache import Decoded, decode_split, load_decoded
from cifar_lab.data.raw import DataError, RawSplit
from cifar_lab.data.sources import shapes

SIZES = {"num_train": 64, "num_test": 20}


class Source:
    """Draws few shapes and counts how often it was asked."""

    def __init__(self, cache_dir: Path, max_gib: float = 1.0) -> None:
        self.cache_dir, self.max_gib, self.reads = cache_dir, max_gib, 0

    def read(self) -> dict[str, RawSplit]:
        self.reads += 1
        return {split: shapes.load(split, root=None, **SIZES) for split in ("train", "test")}

    def load(self, key: str = "key") -> Decoded:
        return load_decoded(self.read, key, name="tiny", cache_dir=self.cache_dir, max_gib=self.max_gib)

    @property
    def folder(self) -> Path:
        (folder,) = (path for path in (self.cache_dir / "data").iterdir() if path.is_dir())
        return folder


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "cache")


def assert_right(decoded: Decoded) -> None:
    for split in ("train", "test"):
        raw = shapes.load(split, root=None, **SIZES)
        np.testing.assert_array_equal(decoded.images[split], raw.images[: len(raw.labels)].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(decoded.labels[split], raw.labels)
    assert decoded.classes == shapes.CLASSES


def test_data_are_read_once_for_each_key(source: Source) -> None:
    for _ in range(2):
        assert_right(source.load())
    assert source.reads == 1
    assert isinstance(source.load().images["train"], np.memmap)
    source.load("other key")
    assert source.reads == 2
    hidden = list((source.cache_dir / "data").glob(".*"))
    assert not hidden, "temporary folders stay behind"


@pytest.mark.parametrize("splits", [("train",), ("train", "val"), ("train", "val", "test")])
def test_the_splits_that_there_are(tmp_path: Path, splits: tuple[str, ...]) -> None:
    def read() -> dict[str, RawSplit]:
        return {split: shapes.load("train", root=None, num_train=10 + len(split)) for split in splits}

    for _ in range(2):
        decoded = load_decoded(read, "key", name="tiny", cache_dir=tmp_path, max_gib=1)
        assert {split: len(labels) for split, labels in decoded.labels.items()} == {s: 10 + len(s) for s in splits}


def test_writing_to_an_array_leaves_the_file(source: Source) -> None:
    source.load().images["train"][:] = 0
    assert_right(source.load())
    assert source.reads == 1


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train_images.npy", flip_a_byte),
        ("test_labels.npy", flip_a_byte),
        ("test_images.npy", truncate),
        ("train_images.npy", Path.unlink),
        ("meta.json", truncate),
        ("meta.json", lambda file: file.write_text("{}")),
    ],
)
def test_a_corrupt_cache_is_said_and_rebuilt(
    source: Source, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], object]
) -> None:
    source.load()
    damage(source.folder / name)
    assert_right(source.load())
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert "is corrupt" in warning and "rebuilding" in warning
    assert_right(source.load())
    assert source.reads == 2


def test_a_folder_of_other_data_is_not_taken(source: Source) -> None:
    source.load("key")
    first = source.folder
    source.load("other key")
    (second,) = (path for path in first.parent.iterdir() if path.is_dir() and path != first)
    shutil.rmtree(first)
    second.rename(first)
    assert_right(source.load("key"))
    assert source.reads == 3


def test_left_overs_of_a_killed_process_go(source: Source) -> None:
    source.load()
    folder = source.folder
    left_over = folder.parent / f".{folder.name}.partial"
    left_over.mkdir()
    flip_a_byte(folder / "test_images.npy")
    source.load()
    assert not left_over.exists()


def test_a_cache_that_cannot_be_written_names_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cache .* cannot be written \(.*: set CIFAR_LAB_CACHE"):
        Source(tmp_path / "file").load()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 20,000 bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_behind(source: Source, small_files: None) -> None:
    with pytest.raises(DataError, match=r"File too large.*: set CIFAR_LAB_CACHE"):
        source.load()
    assert not [path for path in (source.cache_dir / "data").iterdir() if path.is_dir()]


def test_an_error_of_the_source_passes_through(source: Source) -> None:
    def read() -> dict[str, RawSplit]:
        raise FileNotFoundError("train-00000.parquet")

    with pytest.raises(DataError, match=r"cannot be read: train-00000\.parquet"):
        load_decoded(read, "key", name="tiny", cache_dir=source.cache_dir, max_gib=1)
    assert not [path for path in (source.cache_dir / "data").iterdir() if path.is_dir()]


def test_too_large_is_refused_decoded_or_not(source: Source) -> None:
    source.max_gib = 1e-4
    message = r"84 pictures of 32 x 32 pixels take .* GiB decoded, more than data\.max_gib=0\.0001"
    with pytest.raises(DataError, match=message):
        source.load()
    assert not [path for path in (source.cache_dir / "data").iterdir() if path.is_dir()]
    source.max_gib = 1.0
    source.load()
    source.max_gib = 1e-4
    with pytest.raises(DataError, match=message):
        source.load()


@pytest.mark.parametrize(
    ("args", "message"), [({"image_size": 16}, "differ in size"), ({"classes": ("a",) * 10}, "different classes")]
)
def test_splits_that_do_not_go_together(source: Source, args: dict[str, object], message: str) -> None:
    def read() -> dict[str, RawSplit]:
        test = shapes.load("test", root=None, num_test=20, image_size=int(str(args.get("image_size", 32))))
        return {**source.read(), "test": RawSplit(test.images, test.labels, args.get("classes", shapes.CLASSES))}  # type: ignore[arg-type]

    with pytest.raises(DataError, match=message):
        load_decoded(read, "key", name="tiny", cache_dir=source.cache_dir, max_gib=1)


def test_the_fingerprint_covers_pictures_labels_and_names() -> None:
    def fingerprint(value: int = 0, label: int = 0, name: str = "a") -> str:
        raw = RawSplit(np.full((2, 8, 8, 3), value, np.uint8), np.array([label, 1]), (name, "b"))
        return decode_split(raw, io.BytesIO()).fingerprint(raw.classes)

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(value=1), fingerprint(label=1), fingerprint(name="c")}) == 4


PROCESS = """
import sys, time
from pathlib import Path
from cifar_lab.data.cache import load_decoded
from cifar_lab.data.sources import shapes

cache_dir, me = Path(sys.argv[1]), sys.argv[2]

def read():
    (cache_dir / f"decoded-{me}").touch()
    time.sleep(0.3)  # long enough for all to arrive
    return {split: shapes.load(split, root=None, num_train=64, num_test=20) for split in ("train", "test")}

(cache_dir / f"ready-{me}").touch()
while not (cache_dir / "go").exists():
    time.sleep(0.001)
decoded = load_decoded(read, "key", name="tiny", cache_dir=cache_dir, max_gib=1)
print(decoded.meta["train"].fingerprint(decoded.classes))
"""


@pytest.mark.launch
def test_of_four_processes_one_decodes(repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", PROCESS, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(i)], cwd=repo, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(4)
    ]
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1
    assert len(list(tmp_path.glob("decoded-*"))) == 1
