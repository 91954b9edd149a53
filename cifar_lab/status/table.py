"""The table of `cifar-lab status`, once or again and again until all runs have ended."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

from cifar_lab.cli.printable import duration, percent, shown
from cifar_lab.cli.table import table
from cifar_lab.status.slurm_queue import Queue
from cifar_lab.status.state import EffectiveState, RunState

HEADINGS = ("run", "state", "job", "step", "val error", "images/s", "left", "last message")
NUMBERS = ("step", "val error", "images/s", "left")
NARROW = 120
OLD_SECONDS = 86400.0
WATCH_SECONDS = 2.0


def show(
    read: Callable[[], tuple[list[RunState], Queue]], folders: Sequence[Path], *, everything: bool, watch: bool
) -> None:
    """Print the runs in `folders`; with `watch` again and again until all ended: on a terminal over the last text."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    redraws = watch and console.is_terminal and not console.is_dumb_terminal
    live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") if redraws else None
    with live or nullcontext():
        while True:
            runs, queue = read()
            text = text_of(runs, queue, folders, everything=everything)
            more = watch and any(run.active for run in runs)
            if live is not None:
                live.update(Text(text), refresh=True)
            else:
                print(text, end="\n\n" if more else "\n", flush=True)
            if not more:
                return
            time.sleep(WATCH_SECONDS)


def text_of(runs: Sequence[RunState], queue: Queue, folders: Sequence[Path], *, everything: bool) -> str:
    """All that is said of the runs in `folders`: what runs first, then what needs somebody, the newest first."""
    order = get_args(EffectiveState)
    runs = sorted(runs, key=lambda run: (order.index(run.effective_state), -run.updated, str(run.path)))
    young = time.time() - OLD_SECONDS
    seen = [run for run in runs if everything or run.active or run.path in folders or run.updated > young]
    text = [_table(seen, folders[0] if len(folders) == 1 else None)] if seen else []
    if not runs:
        text.append(f"no runs in {', '.join(shown(folder) for folder in folders)}")
    if len(runs) == len(seen) == 1:
        text.append(shown(seen[0].path))
        if seen[0].checkpoint_step is not None:
            text.append(f"newest checkpoint: step {seen[0].checkpoint_step}")
    if hidden := len(runs) - len(seen):
        text.append(f"{hidden} {'run' if hidden == 1 else 'runs'} that ended more than a day ago: show with --all")
    if queue.problem:
        text.append(queue.problem)
    return "\n".join(text)


def _table(runs: Sequence[RunState], folder: Path | None) -> str:
    """A row for each of `runs`, their names relative to `folder`; on a narrow terminal all words in one column."""
    rows = [_row(run, folder) for run in runs]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < NARROW:
        narrow = [[row[1], *row[3:7], "\n".join(filter(None, (row[0], row[2], row[7])))] for row in rows]
        return table(narrow, ("state", *NUMBERS, "run"), numbers=NUMBERS)
    return table(rows, HEADINGS, numbers=NUMBERS)


def _row(run: RunState, folder: Path | None) -> list[str]:
    inside = folder is not None and run.path != folder and run.path.is_relative_to(folder)
    step = f"{run.step}/{run.total_steps} {int(100 * run.step / run.total_steps)}%" if run.total_steps else ""
    cells = (
        run.path.relative_to(folder) if folder is not None and inside else Path(*run.path.parts[-2:]),
        run.effective_state,
        _job(run),
        step,
        "" if run.val_error is None else percent(run.val_error),
        "" if run.images_per_second is None else f"{run.images_per_second:,.0f}",
        "" if run.seconds_left is None else duration(run.seconds_left),
        run.message,
    )
    return [shown(" ".join(str(cell).split())) for cell in cells]


def _job(run: RunState) -> str:
    if run.job is None:
        return (run.job_id or "") if run.effective_state != "completed" else ""
    place = run.job.reason if run.job.waits else run.job.nodes
    return " ".join(part for part in (run.job.id, run.job.state, place) if part)
