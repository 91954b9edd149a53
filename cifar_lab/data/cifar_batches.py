"""The classic CIFAR-10 release: a folder of pickled batches or its .tar.gz, md5-checked; no torch."""

from __future__ import annotations

import codecs
import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cifar_lab.data.raw import DataError, RawSplit

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
META = "batches.meta"
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}

# Published at https://www.cs.toronto.edu/~kriz/cifar.html (archive) and in torchvision.datasets.CIFAR10 (members).
MD5 = {
    ARCHIVE: "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    META: "5ff9c542aee3614f3951f8cda6e48888",
}


def read_batches(place: Path, split: str) -> RawSplit:
    """One split from the folder or archive `place`. Raises DataError for damaged, incomplete or foreign files."""
    names = (META, *BATCHES[split])
    members = dict(_archive_members(place, names) if place.is_file() else _folder_members(place, names))
    missing = [name for name in names if name not in members]
    if missing:
        raise DataError(f"{place} is incomplete, it lacks {', '.join(missing)}: fetch CIFAR-10 again")
    for name, data in members.items():
        _check_md5(place / name, name, hashlib.md5(data, usedforsecurity=False).hexdigest())
    meta = _unpickle(members[META], place / META)
    batches = [_unpickle(members[name], place / name) for name in BATCHES[split]]
    try:
        rows = np.concatenate([np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32) for batch in batches])
        labels = np.concatenate([np.asarray(batch["labels"], np.int64) for batch in batches])
        classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in meta["label_names"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place} does not hold CIFAR-10 batches ({error}): fetch CIFAR-10 again") from error
    return RawSplit(rows.transpose(0, 2, 3, 1), labels, classes)


def _folder_members(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if (folder / name).is_file():
            yield name, (folder / name).read_bytes()


def _archive_members(archive: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Members are read in memory: no path of the archive is ever written to."""
    with archive.open("rb") as file:
        digest = _md5_of(file)
    _check_md5(archive, ARCHIVE, digest)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in names and member.isfile():
                    file_in_tar = tar.extractfile(member)
                    assert file_in_tar is not None
                    yield name, file_in_tar.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be read ({error}): delete it and fetch CIFAR-10 again") from error


def _md5_of(file: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _check_md5(path: Path, name: str, digest: str) -> None:
    if digest != MD5[name]:
        raise DataError(
            f"{path} has md5 {digest}, the official file has {MD5[name]}: "
            "it is incomplete, damaged or another file; delete it and fetch CIFAR-10 again"
        )


def _unpickle(data: bytes, path: Path) -> dict[str, Any]:
    try:
        loaded = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path} is refused: {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{path} cannot be unpickled ({error}): fetch CIFAR-10 again") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a {type(loaded).__name__}, not a dict: fetch CIFAR-10 again")
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in loaded.items()}


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in protocol 2; other codecs could do more than that."""
    if encoding != "latin1":
        raise DataError(f"the pickle asks for the codec {encoding!r}")
    return codecs.latin_1_encode(text)[0]


class _PlainUnpickler(pickle.Unpickler):
    """Allows plain containers and what rebuilds NumPy arrays; nothing else is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        raise DataError(f"the pickle asks for {module}.{name}; only NumPy arrays and plain containers are allowed")
