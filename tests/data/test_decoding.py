"""Many pictures are decoded as Pillow decodes each, here or by processes, and broken ones are named or left out."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from cifar_lab.data import decoder, decoding
from cifar_lab.data.decoding import Pictures
from cifar_lab.data.images import Splits, load_images
from cifar_lab.data.raw import DataError
from cifar_lab.errors import UserError

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {"quality": 90}),
    ("JPEG", {"quality": 60, "subsampling": 2, "progressive": True}),
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("JPEG", {"mode": "L"}),
    ("JPEG", {"mode": "CMYK"}),
    ("PNG", {}),
    ("WEBP", {}),
    ("TIFF", {}),
]


def encode(index: int, size: tuple[int, int] = (33, 33)) -> bytes:
    kind, options = KINDS[index % len(KINDS)]
    small = np.random.default_rng(index).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image, out = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), io.BytesIO()
    image.convert(options.get("mode", "RGB")).save(out, kind, **{k: v for k, v in options.items() if k != "mode"})
    return out.getvalue()


def plainly(data: bytes, size: int | None = None) -> np.ndarray[Any, Any]:
    """As a loop over Pillow decodes it."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def whole(pictures: Pictures) -> np.ndarray[Any, Any]:
    return np.concatenate([*pictures.batches()])


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> list[decoder.Popen[bytes]]:
    """Those that were started: two, however few the pictures are and however few cores there are."""
    started: list[decoder.Popen[bytes]] = []

    def start(*args: Any, **named: Any) -> decoder.Popen[bytes]:
        started.append(subprocess.Popen(*args, **named))
        return started[-1]

    def here(job: object) -> None:
        raise AssertionError("decoded in this process")

    monkeypatch.setattr(decoding, "JOB_BYTES", 20_000)
    monkeypatch.setattr(decoding, "FEW_JOBS", 1)
    monkeypatch.setattr(decoder, "decode", here)
    monkeypatch.setattr(decoder, "Popen", start)
    monkeypatch.setattr(decoder.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    return started


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize("by", ["bytes", "paths", "named files"])
def test_processes_decode_what_pillow_does(
    tmp_path: Path, two_processes: list[decoder.Popen[bytes]], size: int | None, by: str
) -> None:
    data = [encode(index) for index in range(48)]
    cells: list[Any] = [{"bytes": one, "path": None} for one in data]
    if by != "bytes":
        for index, one in enumerate(data):
            (tmp_path / f"{index:03}.x").write_bytes(one)
        cells = [str(tmp_path / f"{index:03}.x") for index in range(48)]
    if by == "named files":
        cells = [{"bytes": None, "path": path} for path in cells]
    pictures = Pictures(pa.chunked_array([pa.array(cells)]), "some", size=size)
    np.testing.assert_array_equal(whole(pictures), np.stack([plainly(one, size) for one in data]))
    assert [process.returncode for process in two_processes] == [0, 0]
    assert len(pictures.files) == (48 if by == "named files" else 0)


def test_few_pictures_are_decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "Popen", None)
    data = [encode(index) for index in range(40)]
    pictures = Pictures(pa.chunked_array([pa.array(data)]), "some")
    np.testing.assert_array_equal(whole(pictures), np.stack([plainly(one) for one in data]))


def test_processes_end_with_whom_they_work_for(two_processes: list[decoder.Popen[bytes]]) -> None:
    batches = Pictures(pa.chunked_array([pa.array([encode(0)] * 400)]), "some").batches()
    next(batches)
    batches.close()
    assert [process.returncode for process in two_processes] == [0, 0]


def test_a_process_that_fails_is_one_message(
    two_processes: list[decoder.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("/bin/false", "/no/such/program"):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(UserError, match="a process that decodes pictures failed"):
            whole(Pictures(pa.chunked_array([pa.array([encode(0)] * 40)]), "some"))


def test_a_process_that_decodes_loads_little() -> None:
    code = "import sys, cifar_lab.data.decoder; print({'torch', 'numpy', 'pydantic', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_large_pictures_come_few_at_a_time() -> None:
    """So memory is bounded, whether it is the encoded or the decoded ones that take it."""
    noisy = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)).save(noisy, "PNG")
    cells = pa.chunked_array([pa.array([noisy.getvalue()] * 5)])
    assert [len(batch) for batch in Pictures(cells, "some").batches()] == [1] * 5
    assert [len(batch) for batch in Pictures(cells, "some", size=8).batches()] == [1] * 5


def test_progress_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(decoding, "SAY_EVERY", -1.0)
    monkeypatch.setattr(decoding, "JOB_BYTES", 20_000)
    with caplog.at_level(logging.INFO, "cifar_lab"):
        whole(Pictures(pa.chunked_array([pa.array([encode(0)] * 40)]), "some"))
    first, *_, last = [record.getMessage() for record in caplog.records]
    assert first.startswith("some: 7 of 40 pictures decoded, ") and " a second, " in first
    assert last.startswith("some: 40 of 40 pictures decoded, ") and last.endswith(" 0 s left")


def test_a_fit_needs_a_size() -> None:
    with pytest.raises(DataError, match=r"data\.args\.fit=pad needs .* data\.args\.size="):
        Pictures(pa.chunked_array([pa.array([encode(0)])]), "some", fit="pad")


TORN = encode(0)[:-200]


def write_set(root: Path, train: list[tuple[str, bytes]], test: list[tuple[str, bytes]]) -> None:
    """Pictures in SPLIT/CLASS/*, of names CLASS/FILE."""
    for split, files in (("train", train), ("test", test)):
        for name, data in files:
            file = root / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def good(letter: str, start: int, count: int = 5) -> list[tuple[str, bytes]]:
    return [(f"{letter}/{index}.png", encode(index)) for index in range(start, start + count)]


def load(root: Path, cache: Path, **args: Any) -> Splits:
    return load_images("hub", {"id": "mine", **args}, root=str(root), max_gib=1, cache_dir=cache)


BROKEN_TRAIN = [("a/torn.png", TORN), ("b/empty.png", b""), ("b/text.png", b"no picture"), ("a/02.png", TORN)]


def test_all_broken_pictures_are_named_in_one_message(tmp_path: Path) -> None:
    train = [*good("a", 0), *good("b", 10), *BROKEN_TRAIN]
    write_set(tmp_path / "data", train, [*good("a", 20), *good("b", 30), ("b/torn.png", TORN)])
    with pytest.raises(DataError) as raised:
        load(tmp_path / "data", tmp_path / "cache")
    said = str(raised.value)
    assert "5 of 25 pictures are broken (2 of a, 3 of b): " in said
    assert "train/a/02.png cannot be read: image file is truncated" in said and "; ... (all of them: " in said
    assert said.endswith("leave them out with data.args.on_broken=skip")
    (listing,) = (tmp_path / "cache" / "data").glob("*.broken.txt")
    assert str(listing) in said
    lines = listing.read_text().splitlines()
    named = ["train/a/02.png", "train/a/torn.png", "train/b/empty.png", "train/b/text.png", "test/b/torn.png"]
    assert [line.split(" ")[0] for line in lines] == [str(tmp_path / "data" / name) for name in named]
    assert lines[2].endswith("is missing or empty") and "is not a picture" in lines[3]


def test_broken_pictures_are_left_out_and_the_rest_is_as_if_they_were_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, test = [*good("a", 0), *good("b", 10)], [*good("a", 20), *good("b", 30)]
    write_set(tmp_path / "whole", train, test)
    write_set(tmp_path / "data", [*train, *BROKEN_TRAIN], test)
    expected = load(tmp_path / "whole", tmp_path / "cache")
    for words in ("decoded now", "from the cache"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "cifar_lab"):
            found = load(tmp_path / "data", tmp_path / "cache", on_broken="skip")
        (said,) = (text for record in caplog.records if "20 pictures" in (text := record.getMessage()))
        assert words in said and "; left out: 4 of 24 pictures are broken (2 of a, 2 of b): " in said
        for one, other in ((found.train, expected.train), (found.test, expected.test)):
            assert one is not None and other is not None
            assert one.fingerprint == other.fingerprint
            np.testing.assert_array_equal(one.pixels, other.pixels)
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_array_equal(one.ids, np.arange(10))
            assert [Path(name).name for name in one.names] == [Path(name).name for name in other.names]
        assert found.sums == expected.sums


def test_nothing_is_left_out_of_good_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(tmp_path / "data", good("a", 0), good("a", 20))
    with caplog.at_level(logging.INFO, "cifar_lab"):
        found = load(tmp_path / "data", tmp_path / "cache", on_broken="skip")
    assert found.train.fingerprint == load(tmp_path / "data", tmp_path / "cache").train.fingerprint
    assert "left out" not in caplog.text and not [*(tmp_path / "cache" / "data").glob("*.txt")]


def test_a_split_of_broken_pictures_alone_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "data", good("a", 0), [("a/torn.png", TORN)])
    with pytest.raises(DataError, match=r"test/a/torn\.png .*: no others are left in a split"):
        load(tmp_path / "data", tmp_path / "cache", on_broken="skip", size=8)


def test_a_picture_that_was_mended_comes_back(tmp_path: Path) -> None:
    """Also one that a table names and that was not there."""
    (tmp_path / "data").mkdir()
    cells = [{"bytes": None, "path": str(tmp_path / f"{index}.png")} for index in range(4)]
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(encode(index))
    for split in ("train", "test"):
        table = pa.table({"image": cells, "label": ["a", "a", "b", "b"]})
        pq.write_table(table, tmp_path / "data" / f"{split}.parquet")
    for _ in range(2):
        assert load(tmp_path / "data", tmp_path / "cache", on_broken="skip").train.labels.tolist() == [0, 0, 1]
    (tmp_path / "3.png").write_bytes(encode(3))
    assert load(tmp_path / "data", tmp_path / "cache", on_broken="skip").train.labels.tolist() == [0, 0, 1, 1]
