"""metrics.jsonl as columns of numbers, read fast, and what a picture needs of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

KEYS = ("step", "epoch", "time", "loss", "accuracy", "count", "lr", "grad_norm", "images_per_second")
SPLITS = ("train", "val", "test")
CHUNK_BYTES = 1 << 20
EMPTY: Numbers = np.empty(0)


@dataclass(frozen=True, eq=False)
class Metrics:
    """Columns by split and key, in the order of training, NaN where a line lacks a number."""

    columns: dict[str, dict[str, Numbers]] = field(default_factory=dict)
    num_lines: int = 0
    unreadable: int = 0
    first_unreadable: int = 0

    def column(self, split: str, key: str) -> Numbers:
        """One column, with its gaps."""
        return self.columns.get(split, {}).get(key, EMPTY)

    def curve(self, split: str, key: str, *, over: str = "epoch") -> tuple[Numbers, Numbers]:
        """Epochs and values of `key` on a split, without gaps."""
        x, y = self.column(split, over), self.column(split, key)
        known = np.isfinite(x) & np.isfinite(y)
        return x[known], y[known]

    def last(self, split: str, key: str) -> float | None:
        """The latest number there is."""
        values = self.column(split, key)
        known = values[np.isfinite(values)]
        return float(known[-1]) if len(known) else None


def read_metrics(path: Path) -> Metrics:
    """Columns of a metrics.jsonl; a torn last line is left out, other unreadable lines are counted. Raises OSError."""
    gathered: dict[str, dict[str, list[Numbers]]] = {split: {key: [] for key in KEYS} for split in SPLITS}
    num_lines = unreadable = first_unreadable = 0
    for lines in _chunks(path):
        records = _parse(lines)
        for number, record in enumerate(records, start=num_lines + 1):
            if not isinstance(record, dict):
                unreadable += 1
                first_unreadable = first_unreadable or number
        num_lines += len(lines)
        objects = [record for record in records if isinstance(record, dict)]
        for split, columns in gathered.items():
            of_split = [record for record in objects if record.get("split") == split]
            for key, parts in columns.items():
                parts.append(_numbers([record.get(key) for record in of_split]))
    joined = {
        split: {key: np.concatenate(parts) if parts else EMPTY for key, parts in by_key.items()}
        for split, by_key in gathered.items()
    }
    return Metrics(joined, num_lines, unreadable, first_unreadable)


def _chunks(path: Path) -> Iterator[list[bytes]]:
    """Complete lines, about a megabyte at a time."""
    if not path.exists():
        return
    if not path.is_file():
        raise OSError(f"{path} is not a file")  # a pipe would wait for ever
    with open(os.fspath(path), "rb") as file:
        while lines := file.readlines(CHUNK_BYTES):
            if not lines[-1].endswith(b"\n"):
                lines.pop()
            if lines:
                yield lines


def _parse(lines: Sequence[bytes]) -> list[Any]:
    """One value a line, None for what is no JSON; all at once where that goes, which is twice as fast."""
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines):  # else a line holds several values
            return list(records)
    except (ValueError, RecursionError):
        pass
    return [_parse_line(line) for line in lines]


def _parse_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _numbers(values: list[Any]) -> Numbers:
    """Finite numbers as they are, NaN for everything else."""
    if set(map(type, values)) <= {float, int, type(None)}:
        try:
            numbers = np.array(values, dtype=np.float64)
        except OverflowError:  # an integer that no float can hold
            numbers = np.array([number(value) for value in values], dtype=np.float64)
    else:
        numbers = np.array([number(value) for value in values], dtype=np.float64)
    numbers[np.isinf(numbers)] = np.nan
    return numbers


def number(value: object) -> float:
    """`value` where it is a finite number (true and false are none), else NaN."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value) if math.isfinite(value) else math.nan
        except OverflowError:
            pass
    return math.nan


def epoch_means(epochs: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Mean position and mean value of what was logged within each epoch."""
    # A line at epoch 3.0 closes the third epoch: it belongs to (2, 3].
    _, group = np.unique(np.ceil(epochs), return_inverse=True)
    counts = np.bincount(group)
    return np.bincount(group, epochs) / counts, np.bincount(group, values) / counts


def thinned(x: Numbers, y: Numbers, buckets: int) -> tuple[Numbers, Numbers]:
    """At most two points a bucket, its lowest and its highest, so that no peak is lost."""
    if len(x) <= 2 * buckets:
        return x, y
    edges = np.linspace(0, len(x), buckets + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        kept |= {start + int(y[start:end].argmin()), start + int(y[start:end].argmax())}
    order = np.array(sorted(kept))
    return x[order], y[order]
