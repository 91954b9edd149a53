"""All files of a report, into one folder."""

from __future__ import annotations

import base64
import time
from pathlib import Path

from cifar_lab.files import atomic
from cifar_lab.report.contents import Contents
from cifar_lab.report.files import markdown, results_csv
from cifar_lab.report.page import page
from cifar_lab.report.ranking import draw_ranking
from cifar_lab.report.svg import draw, standalone

# A sheet of 64 mistakes has about 0.7 MB; the page has to open on a phone.
PICTURE_BYTES = 8_000_000
RANKING = "Test error, the lowest first"


def write_report(contents: Contents, out: Path) -> Path:
    """Write report.html, report.md, results.csv and plots/; returns the page's path. Raises OSError."""
    started = time.time()
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, str] = {}
    for section in contents.sections:
        if len(section.rows) > 1:
            drawings[section.slug] = draw_ranking(section.rows, RANKING)
            _replace(plots / f"{section.slug}.svg", standalone(drawings[section.slug], RANKING))
        for figure in section.figures:
            drawings[figure.name] = draw(figure)
            _replace(plots / f"{figure.name}.svg", standalone(drawings[figure.name], figure.title))
    _replace(out / "results.csv", results_csv(contents))
    _replace(out / "report.md", markdown(contents))
    _replace(out / "report.html", page(contents, drawings, _pictures(contents), started))
    return out / "report.html"


def _pictures(contents: Contents) -> dict[int, str]:
    """Data URLs of mistakes.png by id() of a run: one an experiment first, as long as the page stays small enough."""
    experiments = [ranked.experiment for section in contents.sections for ranked in section.ranked]
    first = [experiment.runs[0] for experiment in experiments]
    others = [run for experiment in experiments for run in experiment.runs[1:]]
    pictures: dict[int, str] = {}
    left = PICTURE_BYTES
    for run in [*first, *others]:
        path = run.path / "mistakes.png"
        try:
            if not path.is_file() or path.stat().st_size > left:
                continue
            data = path.read_bytes()
        except OSError:
            continue
        if data.startswith(b"\x89PNG\r\n"):
            left -= len(data)
            pictures[id(run)] = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return pictures


def _replace(path: Path, content: str) -> None:
    """Write by rename; a name that is no text (a lone surrogate) has question marks."""
    atomic.write_text(path, content.encode("utf-8", "replace").decode("utf-8"))
