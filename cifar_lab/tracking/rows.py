"""Lines of metrics.jsonl as rows of W&B's history, whose steps must rise.

A line's place there is four times its training step plus one of four: a validation that a stopped run owes comes with a
later attempt, when W&B accepts no more of that step. A line that a resumed run repeats has its old place.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cifar_lab.files.jsonl import parse_object

POLL_SECONDS = 0.5
KINDS = ("train", "val", "test", "pictures")
COMMON_FIELDS = ("split", "step", "epoch", "time")


def place(step: int, kind: str) -> int:
    """The W&B step of what a training step has of one kind."""
    return len(KINDS) * step + KINDS.index(kind)


def row(line: dict[str, Any]) -> dict[str, Any]:
    """A line's numbers under W&B's names, `val/loss`, and the axes: training step and epoch."""
    numbers = {
        f"{line['split']}/{key}": value for key, value in line.items() if key not in COMMON_FIELDS and value is not None
    }
    return {"step": line["step"], "epoch": line["epoch"], **numbers}


def follow(path: Path, ended: threading.Event) -> Iterator[dict[str, Any]]:
    """The complete lines of metrics.jsonl, from the first on, until `ended` and nothing is left."""
    with open(path, "a+b") as file:  # there may be none yet
        file.seek(0)
        rest = b""
        while True:
            last_round = ended.is_set()
            for piece in file:
                rest += piece
                if rest.endswith(b"\n"):
                    fields, rest = parse_object(rest), b""
                    if fields is not None:  # a damaged line must not keep the others from being sent
                        yield fields
            if last_round:
                return
            ended.wait(POLL_SECONDS)
