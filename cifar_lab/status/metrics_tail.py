"""The newest numbers of a metrics.jsonl of any length, from its last bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab.files.jsonl import last_lines, parse_object

TAIL_BYTES = 2**20
PACE_LINES = 200


@dataclass(frozen=True)
class MetricsTail:
    """The last training line, and the numbers that others hold: None without one. `pace` is in seconds a step."""

    train: dict[str, Any]
    val_error: float | None
    test_error: float | None
    pace: float | None

    def seconds_left(self, total_steps: int, now: float) -> float | None:
        """Until `total_steps`, at the pace of the last log lines; the time since the last one counts."""
        if self.pace is None:
            return None
        left: float = self.pace * (total_steps - self.train["step"]) - (now - self.train["time"])
        return max(0.0, left)

    def last_line(self) -> str:
        """Epoch and loss, for people."""
        known = (("epoch {:.1f}", self.train.get("epoch")), ("loss {:.4f}", self.train.get("loss")))
        return ", ".join(text.format(value) for text, value in known if isinstance(value, (int, float)))


def read_tail(path: Path, since: float = 0.0) -> MetricsTail:
    """Newest numbers; the pace is that of lines written after `since`, the start of the attempt."""
    lines = last_lines(path, TAIL_BYTES)
    train = [found for line in lines[-PACE_LINES:] if (found := _of_split(line, "train")) is not None]
    return MetricsTail(
        train=train[-1] if train else {},
        val_error=_error(lines, "val"),
        test_error=_error(lines, "test"),
        pace=_pace([line for line in train if line["time"] >= since]),
    )


def _of_split(line: bytes, split: str) -> dict[str, Any] | None:
    """The line as an object if it is of this split; others are not parsed."""
    found = parse_object(line) if split.encode() in line else None
    match found:
        case {"split": found_split, "step": int(), "time": int() | float()} if found_split == split:
            return found
    return None


def _error(lines: list[bytes], split: str) -> float | None:
    newest = next((found for line in reversed(lines) if (found := _of_split(line, split)) is not None), {})
    accuracy = newest.get("accuracy")  # null where the network gave NaN
    return 1 - accuracy if isinstance(accuracy, (int, float)) else None


def _pace(train: list[dict[str, Any]]) -> float | None:
    steps = train[-1]["step"] - train[0]["step"] if train else 0
    return (train[-1]["time"] - train[0]["time"]) / steps if steps > 0 else None
