"""Lines of metrics.jsonl as rows of W&B's history, whose steps must rise.

A line's place there is four times its training step plus one of four: a validation that a stopped run owes comes with a
later attempt, when W&B accepts no more of that step. A line that a resumed run repeats has its old place.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

POLL_SECONDS = 0.5
PLACES = 4
ORDER = {"train": 0, "val": 1, "test": 2}
PICTURES = 3
COMMON_FIELDS = ("split", "step", "epoch", "time")


def place(step: int, order: int) -> int:
    """The W&B step of a training step's line number `order`."""
    return PLACES * step + order


def follow(path: Path, ended: threading.Event) -> Iterator[dict[str, Any]]:
    """The complete lines of metrics.jsonl, from the first on, until `ended` and nothing is left."""
    file: BinaryIO | None = None
    rest = b""
    while True:
        last_round = ended.is_set()
        if file is None and path.exists():
            file = open(path, "rb")  # noqa: SIM115
        if file is not None:
            while chunk := file.read(1 << 20):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, map(_parse, lines))
        if last_round:
            return
        ended.wait(POLL_SECONDS)


def place_of(line: dict[str, Any]) -> int:
    """Where a line goes."""
    return place(line["step"], ORDER[line["split"]])


def row(line: dict[str, Any]) -> dict[str, Any]:
    """A line's numbers under W&B's names, `val/loss`, and the axes: training step and epoch."""
    numbers = {
        f"{line['split']}/{key}": value for key, value in line.items() if key not in COMMON_FIELDS and value is not None
    }
    return {"step": line["step"], "epoch": line.get("epoch"), **numbers}


def _parse(line: bytes) -> dict[str, Any] | None:
    """None for what is no line of metrics: a damaged one must not keep the others from being sent."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match fields:
        case {"step": int(step), "split": str(split)} if step >= 0 and split in ORDER:
            return dict(fields)
    return None
