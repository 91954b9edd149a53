"""The decoded-data cache: memory-mapped, checksummed, written atomically, shared by processes; no torch.

CACHE/data/SOURCE-KEY/ holds {train,test}_{images,labels}.npy and meta.json.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cifar_lab.data.decode import SplitMeta, check_memory, decode_split
from cifar_lab.data.raw import DataError, RawSplit

logger = logging.getLogger("cifar_lab")

FORMAT = 1
SPLITS = ("train", "test")
_KINDS = ("images", "labels")
Read = Callable[[], Mapping[str, RawSplit]]


@dataclass(frozen=True)
class Decoded:
    """Both splits: uint8 (N, 3, H, W) and int64 (N,), from files copy-on-write or in memory."""

    images: Mapping[str, npt.NDArray[np.uint8]]
    labels: Mapping[str, npt.NDArray[np.int64]]
    meta: Mapping[str, SplitMeta]
    classes: tuple[str, ...]


class _CorruptCacheError(Exception):
    """The folder is there, but not what was written."""


def load_decoded(read: Read, key: str, *, name: str, cache_dir: Path, max_gib: float) -> Decoded:
    """The data that `read` returns, decoded at most once for each `key` and cache.

    Raises DataError for data beyond `max_gib`. A cache that cannot be written is said, and the data decoded in memory.
    """
    digest = hashlib.sha256(f"{FORMAT}\n{name}\n{key}".encode()).hexdigest()
    folder = Path(cache_dir) / "data" / f"{name}-{digest[:8]}"
    try:
        with suppress(_CorruptCacheError):  # said by the process that rebuilds it
            decoded = _load(folder, digest, max_gib)
            if decoded is not None:
                return decoded
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            return _load_or_build(folder, digest, read, max_gib)
    except OSError as error:
        logger.warning("the cache %s cannot be used (%s): decoding in memory; see CIFAR_LAB_CACHE", folder, error)
    return _decode_in_memory(_read_checked(read, max_gib))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout  # here, since most starts find the cache filled

    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for another process that decodes the data (%s)", lock.lock_file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _load_or_build(folder: Path, digest: str, read: Read, max_gib: float) -> Decoded:
    """Under the lock, so nobody else writes."""
    try:
        decoded = _load(folder, digest, max_gib)  # another process may have built it while we waited
        if decoded is not None:
            return decoded
    except _CorruptCacheError as corrupt:
        logger.warning("the cache %s is corrupt (%s): rebuilding it", folder, corrupt)
        shutil.rmtree(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        _write(partial, digest, _read_checked(read, max_gib))
        partial.rename(folder)
        decoded = _load(folder, digest, max_gib)
    except _CorruptCacheError as corrupt:
        raise OSError(f"what was written does not read back: {corrupt}") from corrupt
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    assert decoded is not None
    return decoded


def _read_checked(read: Read, max_gib: float) -> Mapping[str, RawSplit]:
    try:
        raw = read()
    except OSError as error:
        raise DataError(f"the data cannot be read: {error}") from error
    train, test = (raw[split] for split in SPLITS)
    if train.classes != test.classes:
        raise DataError(f"the splits have different classes: {train.classes} and {test.classes}")
    if train.shape[1:] != test.shape[1:]:
        sizes = " and ".join(f"{split.shape[2]} x {split.shape[1]}" for split in (train, test))
        raise DataError(f"training and test pictures differ in size ({sizes} pixels): use one size, see data.args")
    check_memory([(split.shape[0], 3, *split.shape[1:3]) for split in (train, test)], max_gib)
    return raw


def _write(folder: Path, digest: str, raw: Mapping[str, RawSplit]) -> None:
    """Plain writes, not a writable memory map: on a full disk the latter is a bus error."""
    meta: dict[str, Any] = {"format": FORMAT, "key_sha256": digest, "classes": raw["train"].classes, "splits": {}}
    for split in SPLITS:
        num, height, width, _ = raw[split].shape
        with (folder / f"{split}_images.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (num, 3, height, width)}
            np.lib.format.write_array_header_1_0(file, header)
            split_meta = decode_split(raw[split], lambda planes: file.write(planes.data))
        np.save(folder / f"{split}_labels.npy", raw[split].labels.astype("<i8"))
        meta["splits"][split] = asdict(split_meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def _load(folder: Path, digest: str, max_gib: float) -> Decoded | None:
    """None if there is no cache. Raises _CorruptCacheError, and DataError for data beyond `max_gib`."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["format"] != FORMAT or meta["key_sha256"] != digest:
            raise _CorruptCacheError("meta.json belongs to other data")
        splits = {split: SplitMeta.from_json(meta["splits"][split]) for split in SPLITS}
        check_memory([splits[split].shape for split in SPLITS], max_gib)
        images = {split: np.load(folder / f"{split}_images.npy", mmap_mode="c") for split in SPLITS}
        labels = {split: np.load(folder / f"{split}_labels.npy") for split in SPLITS}
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.exists():
            raise _CorruptCacheError(str(error)) from error
        return None
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise _CorruptCacheError(f"{type(error).__name__}: {error}") from error
    _verify(splits, images, labels)
    return Decoded(images, labels, splits, tuple(meta["classes"]))


def _verify(splits: Mapping[str, SplitMeta], images: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    expected = {(split, kind): getattr(splits[split], f"{kind}_sha256") for split in SPLITS for kind in _KINDS}
    arrays = {(split, kind): {"images": images, "labels": labels}[kind][split] for split, kind in expected}
    for split in SPLITS:
        if images[split].shape != splits[split].shape or images[split].dtype != np.uint8:
            raise _CorruptCacheError(f"{split}_images.npy has another shape than meta.json says")
    with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter lock
        for (split, kind), actual in zip(expected, pool.map(_sha256, arrays.values()), strict=True):
            if actual != expected[split, kind]:
                raise _CorruptCacheError(f"the sha256 of {split}_{kind}.npy is wrong")


def _sha256(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _decode_in_memory(raw: Mapping[str, RawSplit]) -> Decoded:
    images, meta = {}, {}
    for split in SPLITS:
        chunks: list[npt.NDArray[np.uint8]] = []
        meta[split] = decode_split(raw[split], chunks.append)
        images[split] = np.concatenate(chunks)
    return Decoded(images, {split: raw[split].labels for split in SPLITS}, meta, raw["train"].classes)
