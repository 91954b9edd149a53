"""Run directories among and below the paths that were given."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from cifar_lab.errors import UsageError

# Any of them makes a run directory: a recipe that was lost must not hide the rest.
SIGNS = ("recipe.yaml", "status.json", "metrics.jsonl", "summary.json")
SIGNS_OF_A_JOB = (*SIGNS, "attempt.json", "job.json", "requeues.jsonl")  # which may be all that is there yet


def find_runs(paths: Collection[Path]) -> list[Path]:
    """Run directories among `paths` and below them, in order, each once; raises UsageError where there is none.

    Symbolic links are followed, each directory once. A report's own folder, which `runs/*` names too, is passed over.
    """
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a directory; give run directories, or a folder of them such as runs")
        if not runs_below([path]) and not (path / "report.html").exists():
            raise UsageError(f"no run in {path}: no recipe.yaml in it or below it")
    found = runs_below(paths)
    if not found:
        raise UsageError("no run there: give run directories, or a folder of them such as runs")
    return found


def runs_below(tops: Iterable[Path], signs: Collection[str] = SIGNS) -> list[Path]:
    """Run directories at or below each of `tops`, each once; not those in another one or in a hidden folder."""
    seen: set[Path] = set()
    found = []
    for top in tops:
        for folder, folders, files in os.walk(top, followlinks=True):
            place = Path(folder).resolve()
            known, run = place in seen, not set(signs).isdisjoint(files)
            seen.add(place)
            folders[:] = [] if known or run else sorted(name for name in folders if not name.startswith("."))
            if run and not known:
                found.append(Path(folder).absolute())
    return found
