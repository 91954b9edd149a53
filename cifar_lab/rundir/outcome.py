"""What a start of a run is told, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from cifar_lab.rundir.directory import RunDir


@dataclass(frozen=True)
class Place:
    """Where the user wants the run directory; see RunDir.locate."""

    runs: str = "runs"
    run_dir: str | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its directory, and whether it completed or was stopped and can be continued."""

    run_dir: RunDir
    completed: bool
