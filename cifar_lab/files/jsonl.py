"""Small files of one JSON object a line, appended to by several programs, any of which may die in the middle of one."""

import json
import os
from pathlib import Path
from typing import Any

TAIL_BYTES = 65536


def last_lines(path: Path, limit: int) -> list[bytes]:
    """What is between the newlines of the last `limit` bytes, the first and last perhaps torn; empty without a file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit).split(b"\n")
    except OSError:
        return []


def last_objects(path: Path) -> list[dict[str, Any]]:
    """Objects among the last TAIL_BYTES, without what is torn or foreign."""
    return [found for line in last_lines(path, TAIL_BYTES) if (found := parse_object(line)) is not None]


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
