"""metrics.jsonl: one JSON object a line; a line counts once its newline is there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cifar_lab.files.atomic import finite, replacing


class MetricsFile:
    """Append-only file of metrics; `truncate`, with which a start begins, drops a line that a crash cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def append(self, fields: dict[str, Any]) -> None:
        """Write one line with one system call, so that a reader or a crash sees all of it or a torn last line."""
        line = json.dumps(finite(fields), allow_nan=False) + "\n"
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        data = memoryview(line.encode())
        while data:
            data = data[os.write(self._descriptor, data) :]

    def read(self) -> list[dict[str, Any]]:
        """All complete lines; raises ValueError with file and line number for one that is not a JSON object."""
        records = []
        for number, line in enumerate(self._lines(), start=1):
            record = _parse(line)
            if record is None:
                raise ValueError(f"{self.path}:{number}: not a JSON object; delete that line")
            records.append(record)
        return records

    def truncate(self, after_step: int) -> int:
        """Drop, by rename, lines past `after_step`, and what cannot be read; return how many of the latter."""
        self.close()
        if not self.path.exists():
            return 0
        unreadable = 0
        with replacing(self.path) as temporary, open(temporary, "wb") as kept:
            for line in self._lines():
                record = _parse(line)
                if record is None:
                    unreadable += 1
                elif record.get("step", 0) <= after_step:
                    kept.write(line)
        return unreadable

    def close(self) -> None:
        """Close the handle; the next append opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lines(self) -> Iterator[bytes]:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
