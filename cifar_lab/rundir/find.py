"""Run directories among and below the paths that were given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cifar_lab.errors import UserError

# Any of them makes a run directory: a recipe that was lost must not hide the rest.
SIGNS = ("recipe.yaml", "status.json", "metrics.jsonl", "summary.json")


class ReportError(UserError):
    """Nothing to report on; the message names the way out."""

    exit_status = 2


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run directories among `paths` and below them, in order, each once; raises ReportError where there is none.

    Symbolic links are followed, each directory once. A report's own folder, which `runs/*` names too, is passed over.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise ReportError(f"{path} is not a directory; give run directories, or a folder of them such as runs")
        here = list(_below(path))
        if not here and not (path / "report.html").exists():
            raise ReportError(f"no run in {path}: no recipe.yaml in it or below it")
        for run in here:
            found.setdefault(run.resolve(), run.absolute())
    if not found:
        raise ReportError("no run there: give run directories, or a folder of them such as runs")
    return list(found.values())


def _below(top: Path) -> Iterator[Path]:
    """Run directories at or below `top`, sorted; nothing inside of one is looked at."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        try:
            place = os.stat(folder)
        except OSError:  # it went away, or may not be read
            folders.clear()
            continue
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders.sort()
        if not set(SIGNS).isdisjoint(files):
            folders.clear()
            yield Path(folder)
