"""The classic CIFAR-10 release: a folder of pickled batches or its .tar.gz, md5-checked; no torch."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

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
    members = _archive_members(place, names) if place.is_file() else _folder_members(place, names)
    missing = [name for name in names if name not in members]
    if missing:
        raise DataError(f"{place} is incomplete, it lacks {', '.join(missing)}: fetch CIFAR-10 again")
    for name, data in members.items():
        _check_md5(place / name, name, hashlib.md5(data, usedforsecurity=False).hexdigest())
    # Only bytes with the published checksum get here, so no pickle of anybody else's is ever read.
    meta, *batches = (pickle.loads(members[name], encoding="bytes") for name in names)
    rows = np.concatenate([batch[b"data"].reshape(-1, 3, 32, 32) for batch in batches])
    labels = np.concatenate([np.asarray(batch[b"labels"], np.int64) for batch in batches])
    return RawSplit(rows.transpose(0, 2, 3, 1), labels, tuple(name.decode() for name in meta[b"label_names"]))


def _folder_members(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _archive_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Members are read in memory: no path of the archive is ever written to."""
    digest = hashlib.md5(usedforsecurity=False)
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    _check_md5(archive, ARCHIVE, digest.hexdigest())
    with tarfile.open(archive, "r:gz") as tar:
        files = [(member.name.rpartition("/")[2], tar.extractfile(member)) for member in tar]
        return {name: file.read() for name, file in files if name in names and file is not None}


def _check_md5(path: Path, name: str, digest: str) -> None:
    if digest != MD5[name]:
        raise DataError(
            f"{path} has md5 {digest}, the official file has {MD5[name]}: "
            "it is incomplete, damaged or another file; delete it and fetch CIFAR-10 again"
        )
