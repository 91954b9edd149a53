"""Which files a source reads, and a stamp that changes whenever one of them does; no torch."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

File = tuple[str, int, int]  # path, bytes, modification time in nanoseconds


# Folders that other programs put beside data; names with a dot in front are theirs too.
_SYSTEM = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}


def files_below(
    folder: str | Path, suffixes: tuple[str, ...], passed: list[str] | None = None, above: tuple[str, ...] = ()
) -> Iterator[File]:
    """Files with one of `suffixes` at any depth, sorted; links are followed. What is passed over goes to `passed`."""
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it lies in
        return
    files, folders, others = [], [], [] if passed is None else passed
    opened = os.open(folder, os.O_RDONLY)  # asked for by name alone, files answer sooner
    try:
        with os.scandir(opened) as entries:
            for entry in entries:
                if is_hidden(entry.name) or not (entry.is_dir() or entry.name.lower().endswith(suffixes)):
                    others.append(f"{folder}/{entry.name}")
                elif entry.is_dir():
                    folders.append(f"{folder}/{entry.name}")
                else:
                    stat = entry.stat(follow_symlinks=entry.is_file())  # else a link to nothing: its reader says so
                    files.append((f"{folder}/{entry.name}", stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        error.filename = f"{folder}/{error.filename or ''}"
        raise
    finally:
        os.close(opened)
    yield from sorted(files, key=itemgetter(0))
    for below in sorted(folders):
        yield from files_below(below, suffixes, passed, (*above, real))


def is_hidden(name: str) -> bool:
    """Whether an entry of a folder is another program's, by its name."""
    return name.startswith(".") or name in _SYSTEM


def file_at(path: str | Path) -> File:
    """The file, or what a link leads to; numbers below zero where there is none to be seen."""
    try:
        stat = os.stat(path)
    except OSError:
        return str(path), -1, -1
    return str(path), stat.st_size, stat.st_mtime_ns


def stamp(files: Iterable[File]) -> str:
    """sha256 over path, size and modification time of each file, in their order."""
    text = "\0".join(f"{path}\0{num_bytes}\0{changed}" for path, num_bytes, changed in files)
    return hashlib.sha256(os.fsencode(text)).hexdigest()
