"""The decoded-data cache: memory-mapped, checksummed, written atomically, shared by processes; no torch.

CACHE/data/SOURCE-KEY/ holds meta.json and, of each split there is, SPLIT_{images,labels}.npy and SPLIT_names.json.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cifar_lab.data.on_disk import file_at
from cifar_lab.data.raw import DataError, RawSplit, broken_pictures

logger = logging.getLogger("cifar_lab")

FORMAT = 3
SPLITS = ("train", "val", "test")  # of which a source has the first one at least
_CHUNK_BYTES = 1 << 25
Read = Callable[[], Mapping[str, RawSplit]]


@dataclass(frozen=True)
class SplitMeta:
    """What is known of a decoded split; sums are over the pixels of each channel, of values 0 to 255."""

    shape: tuple[int, int, int, int]  # (N, 3, H, W)
    images_sha256: str
    labels_sha256: str
    sums: tuple[int, ...]
    square_sums: tuple[int, ...]

    def fingerprint(self, classes: Sequence[str]) -> str:
        """sha256 over pictures, labels and class names: equal data have equal fingerprints, wherever they came from."""
        content = {"shape": self.shape, "images": self.images_sha256, "labels": self.labels_sha256}
        return hashlib.sha256(json.dumps({**content, "classes": list(classes)}, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Decoded:
    """The splits there are: uint8 (N, 3, H, W) from files, copy-on-write, int64 (N,), names of files or none."""

    images: Mapping[str, npt.NDArray[np.uint8]]
    labels: Mapping[str, npt.NDArray[np.int64]]
    names: Mapping[str, Sequence[str]]
    meta: Mapping[str, SplitMeta]
    classes: tuple[str, ...]
    left_out: str  # what is said of broken pictures, if there were any

    def __len__(self) -> int:
        return sum(map(len, self.labels.values()))


def place(cache_dir: Path, name: str, key: str) -> tuple[Path, str]:
    """The folder of decoded data, complete where it holds meta.json, and the digest of what they depend on."""
    digest = hashlib.sha256(f"{FORMAT}\n{name}\n{key}".encode()).hexdigest()
    return Path(cache_dir) / "data" / f"{name}-{digest[:8]}", digest


def load_decoded(read: Read, key: str, *, name: str, cache_dir: Path, max_gib: float) -> Decoded:
    """The data that `read` returns, decoded at most once for each `key` and cache.

    Raises DataError for data beyond `max_gib`, and where the cache cannot be written.
    """
    folder, digest = place(cache_dir, name, key)
    decoded = _load(folder, digest, max_gib)
    if decoded is not None:
        when = datetime.fromtimestamp(folder.stat().st_mtime)
        said = f"{len(decoded):,} pictures from the cache of {when:%Y-%m-%d %H:%M}"
        logger.info("%s (%s)%s", said, folder, decoded.left_out)
        return decoded
    from filelock import FileLock  # here, since most starts find the cache filled

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            decoded = _load(folder, digest, max_gib)  # another process may have built it while we waited
            if decoded is None:
                _build(folder, key, digest, read, max_gib)
                decoded = _load(folder, digest, max_gib)
    except OSError as error:
        raise DataError(
            f"the cache {folder} cannot be written ({error}): set CIFAR_LAB_CACHE to a folder that has room"
        ) from error
    if decoded is None:
        raise DataError(f"{folder} does not read back as it was written: set CIFAR_LAB_CACHE to another disk")
    logger.info("%s pictures decoded now (%s)%s", f"{len(decoded):,}", folder, decoded.left_out)
    return decoded


def _build(folder: Path, key: str, digest: str, read: Read, max_gib: float) -> None:
    """Under the lock, so nobody else writes."""
    if folder.exists():
        logger.warning("the cache %s is corrupt, or pictures that its tables name have changed: rebuilding it", folder)
        shutil.rmtree(folder)
    raw = _read_checked(read, max_gib)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        _write(partial, key, digest, raw, folder.with_name(f"{folder.name}.broken.txt"))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_checked(read: Read, max_gib: float) -> Mapping[str, RawSplit]:
    try:
        raw = read()
    except OSError as error:
        raise DataError(f"the data cannot be read: {error}") from error
    train = raw["train"]
    for name, split in raw.items():
        if train.classes != split.classes:
            raise DataError(f"the splits have different classes: {train.classes} and {split.classes}")
        if train.images.shape[1:] != split.images.shape[1:]:
            sizes = " and ".join(f"{shape[2]} x {shape[1]}" for shape in (train.images.shape, split.images.shape))
            raise DataError(f"train and {name} pictures differ in size ({sizes} pixels): use one size, see data.args")
    check_memory([(split.images.shape[0], 3, *split.images.shape[1:3]) for split in raw.values()], max_gib)
    return raw


def _write(folder: Path, key: str, digest: str, raw: Mapping[str, RawSplit], listing: Path) -> None:
    """Plain writes, not a writable memory map: on a full disk the latter is a bus error."""
    about, _, _ = key.partition("\n")
    meta: dict[str, Any] = {"format": FORMAT, "about": about, "key_sha256": digest}
    meta |= {"classes": raw["train"].classes, "splits": {}, "files": []}
    for split in raw:
        with (folder / f"{split}_images.npy").open("wb") as file:
            meta["splits"][split] = asdict(decode_split(raw[split], file))
        kept, names = raw[split].kept, getattr(raw[split].images, "names", [])
        np.save(folder / f"{split}_labels.npy", raw[split].labels[kept].astype("<i8"))
        names = [names[place] for place in kept] if names else []
        (folder / f"{split}_names.json").write_text(json.dumps(names), encoding="utf-8")
        meta["files"] += getattr(raw[split].images, "files", {}).values()
    meta["left_out"] = broken_pictures(raw, listing)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def decode_split(raw: RawSplit, file: BinaryIO) -> SplitMeta:
    """Write the split to the .npy `file` as planes (N, 3, H, W), and sum it up; broken pictures are left out."""
    num, height, width, _ = raw.images.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (num, 3, height, width)}
    np.lib.format.write_array_header_1_0(file, header)
    digest, sums, begin = hashlib.sha256(), np.zeros((2, 3), np.int64), 0
    broken, batches = getattr(raw.images, "broken", {}), getattr(raw.images, "batches", None)
    rows = max(1, _CHUNK_BYTES // (3 * height * width))
    for pixels in batches() if batches else (raw.images[start : start + rows] for start in range(0, num, rows)):
        gone = [place - begin for place in broken if place >= begin]
        begin += len(pixels)
        planes = np.ascontiguousarray((np.delete(pixels, gone, axis=0) if gone else pixels).transpose(0, 3, 1, 2))
        digest.update(planes.data)
        sums += channel_sums(planes)
        file.write(planes.data)
    kept = raw.kept
    file.seek(0)  # NumPy leaves room in the header for any number of rows
    np.lib.format.write_array_header_1_0(file, header | {"shape": (len(kept), 3, height, width)})
    return SplitMeta(
        shape=(len(kept), 3, height, width),
        images_sha256=digest.hexdigest(),
        labels_sha256=hashlib.sha256(raw.labels[kept].astype("<i8").data).hexdigest(),
        sums=tuple(sums[0].tolist()),
        square_sums=tuple(sums[1].tolist()),
    )


def channel_sums(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Sums over the pixels of each channel, and sums of their squares, (2, 3), of a chunk of pictures (n, 3, h, w)."""
    sums = np.zeros((2, 3), np.int64)
    for channel in range(3):
        # float64 holds every partial sum of a chunk exactly, and its dot product is the fast one
        values = planes[:, channel].astype(np.float64).ravel()
        sums[:, channel] = int(values.sum()), int(values @ values)
    return sums


def _load(folder: Path, digest: str, max_gib: float) -> Decoded | None:
    """None if there is no cache, or not what was written. Raises DataError for data beyond `max_gib`."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        splits = {split: _as_meta(known) for split, known in meta["splits"].items()}
        images = {split: np.load(folder / f"{split}_images.npy", mmap_mode="c") for split in splits}
        labels = {split: np.load(folder / f"{split}_labels.npy") for split in splits}
        names = {split: json.loads((folder / f"{split}_names.json").read_text(encoding="utf-8")) for split in splits}
        classes = tuple(meta["classes"])
        if meta["key_sha256"] != digest:
            return None
        if any(list(file_at(path)) != [path, *known] for path, *known in meta.get("files", ())):
            return None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    check_memory([known.shape for known in splits.values()], max_gib)
    for split, known in splits.items():
        if images[split].shape != known.shape or images[split].dtype != np.uint8:
            return None
        if (_sha256(images[split]), _sha256(labels[split])) != (known.images_sha256, known.labels_sha256):
            return None
    return Decoded(images, labels, names, splits, classes, meta.get("left_out", ""))


def _as_meta(fields: Mapping[str, Any]) -> SplitMeta:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return SplitMeta(**plain)


def _sha256(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def check_memory(shapes: Sequence[Sequence[int]], max_gib: float) -> None:
    """Raise DataError if the decoded splits, given as (N, 3, H, W), take more than `max_gib`."""
    gib = sum(math.prod(shape) for shape in shapes) / 2**30
    if gib > max_gib:
        num, (_, _, height, width) = sum(shape[0] for shape in shapes), shapes[0]
        raise DataError(
            f"{num:,} pictures of {width} x {height} pixels take {gib:.2f} GiB decoded, more than "
            f"data.max_gib={max_gib:g}: raise it if the memory is there, or shrink the pictures where the source has "
            "an argument for it (data.limit does not help: all pictures are cached)"
        )
