"""metrics.jsonl as columns of numbers, and what a picture needs of them."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar_lab.files.jsonl import parse_object

Numbers = NDArray[np.float64]
Curve = tuple[Numbers, Numbers]

KEYS = {"train": ("step", "epoch", "loss", "lr", "images_per_second"), "val": ("epoch", "loss", "accuracy")}
EMPTY: Numbers = np.empty(0)


@dataclass(frozen=True, eq=False)
class Metrics:
    """Columns by split and key, in the order of training, NaN where a line lacks a number; lines that are no JSON."""

    columns: dict[tuple[str, str], Numbers] = field(default_factory=dict)
    unreadable: list[int] = field(default_factory=list)

    def curve(self, split: str, key: str) -> Curve:
        """Epochs and values of `key` on a split, without gaps."""
        x, y = self.columns.get((split, "epoch"), EMPTY), self.columns.get((split, key), EMPTY)
        known = np.isfinite(x) & np.isfinite(y)
        return x[known], y[known]

    def last(self, split: str, key: str) -> float:
        """The latest number there is, NaN without one."""
        values = self.columns.get((split, key), EMPTY)
        known = values[np.isfinite(values)]
        return float(known[-1]) if len(known) else math.nan


def read_metrics(path: Path) -> Metrics:
    """Columns of a metrics.jsonl; a torn last line is left out, other unreadable lines are noted. Raises OSError."""
    columns: dict[tuple[str, str], list[float]] = {(split, key): [] for split in KEYS for key in KEYS[split]}
    unreadable = []
    with open(path, "rb") as file:
        for position, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            record = parse_object(line)
            if record is None:
                unreadable.append(position)
            elif (split := record.get("split")) in tuple(KEYS):
                for key in KEYS[split]:
                    columns[split, key].append(number(record.get(key)))
    return Metrics({place: np.array(values, dtype=np.float64) for place, values in columns.items()}, unreadable)


def number(value: object) -> float:
    """`value` where it is a finite number (true and false are none), else NaN."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value) if math.isfinite(value) else math.nan
        except OverflowError:  # an integer that no float can hold
            pass
    return math.nan


def epoch_means(epochs: Numbers, values: Numbers) -> Curve:
    """Mean position and mean value of what was logged within each epoch."""
    # A line at epoch 3.0 closes the third epoch: it belongs to (2, 3].
    _, group = np.unique(np.ceil(epochs), return_inverse=True)
    counts = np.bincount(group)
    return np.bincount(group, epochs) / counts, np.bincount(group, values) / counts


def thinned(x: Numbers, y: Numbers, buckets: int) -> Curve:
    """At most two points a bucket, its lowest and its highest, so that no peak is lost."""
    if len(x) <= 2 * buckets:
        return x, y
    edges = np.linspace(0, len(x), buckets + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        kept |= {start + int(y[start:end].argmin()), start + int(y[start:end].argmax())}
    order = np.array(sorted(kept))
    return x[order], y[order]
