"""Places on disk: whether they can be written, and whether what a run leaves there has room."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cifar_lab.doctor.check import Check, State
from cifar_lab.errors import UsageError
from cifar_lab.files.cache import cache_root

GIB = 2**30


def disk_checks(runs: Path, checkpoint_bytes: int | None) -> Iterator[Check]:
    """The folder of runs and that of caches; `checkpoint_bytes` is what a run keeps at once, where known."""
    yield _writable("runs", runs)
    place = existing(runs)
    free = shutil.disk_usage(place).free
    says = f"{_size(free)} free in {place}"
    if checkpoint_bytes is None:
        yield Check("disk", "ok", says)
    else:
        says += f", {_size(checkpoint_bytes)} needed for checkpoints"
        fix = "free some space, choose another --runs DIR, or a smaller checkpoint.keep_last"
        state: State = "FAIL" if free < checkpoint_bytes else "warning" if free < 2 * checkpoint_bytes else "ok"
        yield Check("disk", state, says, "" if state == "ok" else fix)
    try:
        yield _writable("cache", cache_root(place))
    except UsageError as error:
        yield Check("cache", "FAIL", str(error), "set CIFAR_LAB_CACHE to a folder that can be written")


def beacon(runs: Path, token: str) -> Path:
    """A file by which the other nodes of a job see whether they share the folder of runs."""
    return existing(runs) / f".cifar_lab-doctor-{token}"


def shared_check(mark: Path) -> Check:
    """Whether this node sees the beacon that node 0 made."""
    if mark.exists():
        return Check("shared runs", "ok", f"{mark.parent} is the same folder as on node 0")
    says = f"{mark.parent} is not the folder that node 0 writes"
    return Check("shared runs", "FAIL", says, "name a folder on a shared file system with --runs DIR")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:,.1f} MiB"


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _writable(name: str, path: Path) -> Check:
    place = existing(path)
    new = "" if place == path.absolute() else f" (it will be created below {place})"
    fix = {"runs": "choose another with --runs DIR", "cache": "set CIFAR_LAB_CACHE to another"}[name]
    if not place.is_dir():
        return Check(name, "FAIL", f"{place} is a file, not a folder", fix)
    try:
        # A file is written for real: permission bits do not tell of read-only mounts and quotas.
        with tempfile.NamedTemporaryFile(dir=place, prefix=".cifar_lab-doctor-") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check(name, "FAIL", f"{place} cannot be written: {error.strerror}", fix)
    return Check(name, "ok", f"{path}{new}")
