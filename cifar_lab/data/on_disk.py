"""Which files a source reads, and a stamp that changes whenever one of them does; no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

File = os.DirEntry[str] | Path


def files_below(
    folder: str | Path, suffixes: tuple[str, ...] = ("",), depth: int | None = None, above: tuple[str, ...] = ()
) -> Iterator[os.DirEntry[str]]:
    """Files with one of `suffixes`, `depth` folders down (None: at any depth), sorted; links are followed."""
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it lies in
        return
    with os.scandir(folder) as entries:
        # `.png` has no suffix, it is hidden
        found = [entry for entry in entries if entry.name[1:].lower().endswith(suffixes) or entry.is_dir()]
    for entry in sorted(found, key=attrgetter("name")):
        if not entry.is_dir():
            if not depth:
                yield entry
        elif depth != 0:
            yield from files_below(entry.path, suffixes, depth and depth - 1, (*above, real))


def stamp(files: Iterable[File]) -> str:
    """sha256 over path, size and modification time (ns) of each file, in their order; links to nothing are none."""
    stats = ((os.fspath(file), file.stat()) for file in files if file.is_file())
    text = "\0".join(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}" for path, stat in stats)
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def size_and_time(file: str) -> tuple[int, int]:
    """Bytes and modification time (ns) of a file, whose change shows there."""
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns
