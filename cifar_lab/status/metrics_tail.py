"""The newest numbers of a metrics.jsonl of any length, from its last bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab.files.jsonl import parse_object

NEAR, FAR = 32 * 1024, (2**20, 16 * 2**20)
VALIDATION = b'"split": "val"'


@dataclass(frozen=True)
class MetricsTail:
    """Last numbers, each None without a line that holds it; `pace` in seconds a step, `last_time` in Unix seconds."""

    train: dict[str, Any]
    val_error: float | None = None
    test_error: float | None = None
    pace: float | None = None

    @property
    def images_per_second(self) -> float | None:
        return _number(self.train.get("images_per_second"))

    def seconds_left(self, step: int, total_steps: int, now: float) -> float | None:
        """Until `total_steps`, at the pace of the last log lines; the time since the last one counts."""
        logged, at = _number(self.train.get("step")), _number(self.train.get("time"))
        if self.pace is None or logged is None or at is None:
            return None
        by_log = self.pace * (total_steps - logged) - (now - at)
        return max(0.0, min(by_log, self.pace * (total_steps - step)))

    def last_line(self) -> str:
        """Epoch and loss, for people."""
        epoch, loss = _number(self.train.get("epoch")), _number(self.train.get("loss"))
        return ", ".join(
            text.format(value) for text, value in (("epoch {:.1f}", epoch), ("loss {:.4f}", loss)) if value is not None
        )


def read_tail(path: Path, since: float = 0.0) -> MetricsTail:
    """Newest numbers; the pace is that of lines written after `since`, the start of the attempt. Never raises."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            lines = [
                line for text in _end_of(file, size, NEAR).split(b"\n") if (line := parse_object(text)) is not None
            ]
            validation = next((line for line in reversed(lines) if line.get("split") == "val"), None)
            for length in FAR:
                if validation is None and size > NEAR:
                    validation = _last_validation(_end_of(file, size, length))
    except OSError:
        return MetricsTail({})
    train = [line for line in lines if line.get("split") == "train"]
    test = next((line for line in reversed(lines) if line.get("split") == "test"), None)
    return MetricsTail(train[-1] if train else {}, _error(validation), _error(test), _pace(train, since))


def _end_of(file: Any, size: int, length: int) -> bytes:
    """Whole lines among the last `length` bytes."""
    file.seek(max(0, size - length))
    data: bytes = file.read(length)
    start = data.find(b"\n") + 1 if size > length else 0
    return data[start : data.rfind(b"\n") + 1]


def _last_validation(data: bytes) -> dict[str, Any] | None:
    at = data.rfind(VALIDATION)
    return None if at < 0 else parse_object(data[data.rfind(b"\n", 0, at) + 1 : data.find(b"\n", at)])


def _error(line: dict[str, Any] | None) -> float | None:
    accuracy = _number(line.get("accuracy")) if line else None
    return None if accuracy is None else 1 - accuracy


def _pace(train: list[dict[str, Any]], since: float) -> float | None:
    points = [(_number(line.get("time")), _number(line.get("step"))) for line in train]
    known = [(time, step) for time, step in points if time is not None and step is not None and time >= since]
    if len(known) < 2 or known[-1][1] <= known[0][1]:
        return None
    return (known[-1][0] - known[0][0]) / (known[-1][1] - known[0][1])


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
