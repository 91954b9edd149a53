"""Things that lie where a command expects a file or a folder, made in a moment."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

Make = Callable[[Path], None]


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # an address has at most 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


def _huge(path: Path) -> None:
    path.write_bytes(b"{")
    os.truncate(path, 40 << 30)  # a hole: takes no room, reads as zeros


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nothing")


def _self_containing(path: Path) -> None:
    path.mkdir()
    (path / "again").symlink_to(".")


def _unreadable(path: Path) -> None:
    path.write_text("name: x\n")
    path.chmod(0)


def _closed_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0)


MATERIALS: dict[str, Make] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "text": lambda path: path.write_text("no such thing\n"),
    "latin": lambda path: path.write_bytes(b"name: caf\xe9\n"),
    "deep": lambda path: path.write_text("[" * 20_000),
    "null": lambda path: path.write_text("null"),
    "list": lambda path: path.write_text("[1, 2]"),
    "wrong types": lambda path: path.write_text(
        '{"name": [], "state": {}, "step": "x", "args": 3, "classes": 7, "format": 1}'
    ),
    "huge": _huge,
    "folder": Path.mkdir,
    "folder in itself": _self_containing,
    "loop": _loop,
    "dangling": _dangling,
    "pipe": os.mkfifo,
    "socket": _socket,
    "unreadable": _unreadable,
    "closed folder": _closed_folder,
}
# Names that are no names of files: they are given as they are.
WORDS = {
    "nothing": "",
    "long": "x" * 300,
    "longest": "x/" * 3000,
    "below a file": "file/below",
    "escapes": "a\x1b[31m\nb",
    "not UTF-8": "\udcff\udcfe",
    "device": "/dev/null/x",
    "key=value": "optim.lr=1",
    "blank": "  ",
    "a picture's": "\udcff.png",
}


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Each path below with its type, size and time of change; folders without the last two."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            seen = os.lstat(path)
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            found[path] = (seen.st_mode, 0 if is_folder else seen.st_size, 0 if is_folder else seen.st_mtime_ns)
    return found
