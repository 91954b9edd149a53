"""Small files of one JSON object a line, appended to by several programs, any of which may die in the middle of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TAIL_BYTES = 65536


def last_objects(path: Path, limit: int = TAIL_BYTES) -> list[dict[str, Any]]:
    """Objects among the last `limit` bytes, without what is torn or foreign; empty when there is no file."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            lines = file.read(limit).split(b"\n")
    except OSError:
        return []
    return [found for line in lines if (found := parse_object(line)) is not None]


def append_line(path: Path, line: str) -> None:
    """Append with one system call and sync; what somebody left without its newline gets one. Raises OSError."""
    with open(path, "ab+", buffering=0) as file:
        torn = b""
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            torn = b"" if file.read(1) == b"\n" else b"\n"
        file.write(torn + line.encode() + b"\n")
        os.fsync(file.fileno())


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The object in one line, None where there is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
