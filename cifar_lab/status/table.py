"""The table of `cifar-lab status`: one line a run, as wide as the terminal."""

from __future__ import annotations

import os
import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.printable import duration
from cifar_lab.status.state import RunState

HEADER = ("run", "state", "job", "step", "val error", "images/s", "left", "last message")
RIGHT = ("step", "val error", "images/s", "left")
ORDER = ("running", "starting", "queued", "lost", "failed", "interrupted", "stopped", "corrupt", "new", "completed")
GAP = "  "
LONGEST_NAME, LONGEST_JOB = 40, 36


def ordered(runs: Sequence[RunState]) -> list[RunState]:
    """What runs first, then what needs somebody, what is done last; the newest first in each."""
    return sorted(runs, key=lambda run: (ORDER.index(run.effective_state), -run.updated, str(run.path)))


def table(runs: Sequence[RunState], folder: Path | None, width: int) -> list[str]:
    """Header and a line for each of `runs`, none wider than `width`; names are relative to `folder`."""
    rows = [HEADER, *(_row(run, folder) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    # A column in which nothing is known tells nothing.
    shown = [column for column in range(len(HEADER) - 1) if any(row[column] for row in rows[1:])]
    lines = []
    for row in rows:
        cells = [
            row[column].rjust(widths[column]) if HEADER[column] in RIGHT else row[column].ljust(widths[column])
            for column in shown
        ]
        lines.append(GAP.join([*cells, row[-1]]))
    return [shorten(line.rstrip(), width) for line in lines]


def details(run: RunState, width: int) -> list[str]:
    """What a single run has room to say in full: where it lives, its newest checkpoint, why it does not go on."""
    lines = [clean(str(run.path))]
    if run.checkpoint_step is not None:
        lines.append(f"newest checkpoint: step {run.checkpoint_step}")
    if run.reason:
        lines.append(clean(run.reason))
    return [part for line in lines for part in textwrap.wrap(line, max(width, 20))]


def clean(text: str) -> str:
    """`text` in one line without anything that a terminal would obey."""
    return " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in text).split())


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` columns; wide characters count twice."""
    if _columns(text[: width + 1]) <= width:
        return text
    end = "..." if width >= 3 else ""
    kept = text[:width]
    while _columns(kept) > width - len(end):
        kept = kept[:-1]
    return kept + end


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _row(run: RunState, folder: Path | None) -> tuple[str, ...]:
    step = ""
    if run.total_steps:
        step = f"{run.step}/{run.total_steps} {int(100 * run.step / run.total_steps):3d}%"
    return (
        _middle(clean(name_of(run.path, folder)), LONGEST_NAME),
        run.effective_state,
        shorten(_job(run), LONGEST_JOB),
        step,
        "" if run.val_error is None else f"{run.val_error:.2%}",
        "" if run.images_per_second is None else f"{run.images_per_second:,.0f}",
        "" if run.seconds_left is None else duration(run.seconds_left),
        clean(run.message),
    )


def name_of(path: Path, folder: Path | None) -> str:
    """`resnet18/0-1a2b3c4d`: relative to the folder that was asked for, else the last two parts."""
    if folder is not None and path != folder and path.is_relative_to(folder):
        return os.path.relpath(path, folder)
    return os.path.join(*path.parts[-2:]) if len(path.parts) > 1 else str(path)


def _job(run: RunState) -> str:
    if run.job is None:
        return clean(run.job_id or "") if run.effective_state != "completed" else ""
    place = run.job.reason if run.job.waits else run.job.nodes
    return clean(" ".join(part for part in (run.job.id, run.job.state, place) if part))


def _middle(text: str, width: int) -> str:
    """A name keeps both of its ends: they tell runs apart."""
    if len(text) <= width:
        return text
    half = (width - 3) // 2
    return f"{text[:half]}...{text[-(width - 3 - half) :]}"
