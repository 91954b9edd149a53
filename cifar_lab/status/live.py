"""The table of runs on the screen, once or again and again until all have ended."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.status.refusals import Refusal, read_refusals
from cifar_lab.status.slurm_queue import Queue, read_queue
from cifar_lab.status.state import RunState, find_runs, read_run
from cifar_lab.status.table import details, ordered, shorten, table

OLD_SECONDS = 86400.0
PIPE_WIDTH = 200


def show(folders: Sequence[Path], *, single: bool, json_: bool, everything: bool, watch: float | None) -> int:
    """Print the runs in `folders`, or the `single` one that is named there; `watch`: every so many seconds."""
    if json_:
        runs, _ = collect(folders)
        print(json.dumps({"runs": [run.fields() for run in runs]}, indent=2))
        return 0
    screen = Screen()
    while True:
        runs, queue = collect(folders, single=single)
        screen.draw(lines(runs, queue, folders, everything=everything, width=screen.width), screen.height)
        if watch is None or not any(run.active for run in runs):
            return 0
        time.sleep(watch)


def collect(folders: Sequence[Path], *, single: bool = False) -> tuple[list[RunState], Queue]:
    """All runs in `folders`, each once, in the order of the table."""
    queue, now = read_queue(), time.time()
    paths = dict.fromkeys(path for folder in folders for path in find_runs(folder))
    if single:
        paths = dict.fromkeys(folders)  # it may not be there yet
    runs = [read_run(path, queue, now) for path in paths]
    runs += [_refused(refusal) for folder in folders for refusal in read_refusals(folder)]
    return ordered(runs), queue


def _refused(refusal: Refusal) -> RunState:
    """A job that never got a run directory, in the place of a run."""
    return RunState(
        path=Path(refusal.recipe),
        state=None,
        effective_state="failed",
        reason=refusal.text,
        message=refusal.text,
        job_id=refusal.job_id,
        updated=refusal.time,
    )


def lines(
    runs: Sequence[RunState], queue: Queue, folders: Sequence[Path], *, everything: bool, width: int
) -> list[str]:
    """What the screen says."""
    now = time.time()
    shown = [run for run in runs if everything or run.active or run.path in folders or now - run.updated < OLD_SECONDS]
    hidden = len(runs) - len(shown)
    text = table(shown, folders[0] if len(folders) == 1 else None, width) if shown else []
    if not runs:
        text.append(f"no runs in {', '.join(map(str, folders))}")
    if len(runs) == 1 and shown:
        text += details(shown[0], width)
    if hidden:
        text.append(f"{hidden} {'run' if hidden == 1 else 'runs'} that ended more than a day ago: show with --all")
    if queue.problem:
        text.append(shorten(queue.problem, width))
    return text


class Screen:
    """Standard output: a terminal is drawn over, anything else gets block after block."""

    def __init__(self) -> None:
        self._redraws = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn: int | None = None

    @property
    def width(self) -> int:
        return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if sys.stdout.isatty() else PIPE_WIDTH

    @property
    def height(self) -> int | None:
        return shutil.get_terminal_size((PIPE_WIDTH, 24)).lines if self._redraws else None

    def draw(self, text: Sequence[str], height: int | None) -> None:
        """Replace what was drawn before."""
        text = list(text)
        if self._drawn is None:
            self._drawn = 0
        elif self._redraws:
            # The last block is as high as the terminal at most, or its top could not be reached again.
            sys.stdout.write(f"\x1b[{self._drawn}F\x1b[J" if self._drawn else "")
        else:
            sys.stdout.write("\n")
        if height is not None and len(text) >= height > 2:
            text = [*text[: height - 2], f"... {len(text) - height + 2} more lines"]
        self._drawn = len(text)
        block = "".join(line + "\n" for line in text)
        encoding = sys.stdout.encoding or "utf-8"  # a C locale may know less than the names
        sys.stdout.write(block.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
