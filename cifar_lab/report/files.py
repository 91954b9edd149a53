"""All files of a report, and what a terminal shows of it."""

from __future__ import annotations

import base64
import csv
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cifar_lab.cli.table import table
from cifar_lab.files import atomic
from cifar_lab.report.contents import COLUMNS, NOTES, SEPARATE, TEXT_COLUMNS, Contents
from cifar_lab.report.page import page
from cifar_lab.report.ranking import draw_ranking
from cifar_lab.report.record import RunRecord
from cifar_lab.report.svg import draw, standalone

# A sheet of 64 mistakes has about 0.7 MB; the page has to open on a phone.
PICTURE_BYTES = 8_000_000
RANKING = "Test error, the lowest first"
Value = str | int | float | None
NUMBERS = (
    "num_parameters", "flops_per_image", "epochs", "steps", "images_per_second", "peak_memory_bytes",
    "wall_seconds", "num_train", "world_size", "micro_batch",
)  # fmt: skip
# Of COLUMNS, those that 80 characters have room for.
SHORT = ("rank", "experiment", "test error", "seeds", "val error", "parameters", "epochs", "images/s", "wall time")


def write_report(contents: Contents, out: Path) -> Path:
    """Write report.html, report.md, results.csv and plots/; returns the page's path. Raises OSError."""
    started = time.time()
    (out / "plots").mkdir(parents=True, exist_ok=True)
    drawings: dict[str, str] = {}
    titles: dict[str, str] = {}
    for section in contents.sections:
        if len(section.ranked) > 1:
            drawings[section.slug], titles[section.slug] = draw_ranking(section.ranked, RANKING), RANKING
        for figure in section.figures:
            drawings[figure.name], titles[figure.name] = draw(figure), figure.title
    texts = {f"plots/{name}.svg": standalone(drawing, titles[name]) for name, drawing in drawings.items()}
    texts |= {"results.csv": results_csv(contents), "report.md": markdown(contents)}
    texts["report.html"] = page(contents, drawings, _pictures(contents), started)
    for name, text in texts.items():
        # A name that is no text (a lone surrogate) has question marks.
        atomic.write_text(out / name, text.encode("utf-8", "replace").decode("utf-8"))
    return out / "report.html"


def _pictures(contents: Contents) -> dict[RunRecord, str]:
    """Data URLs of mistakes.png: one an experiment first, as long as the page stays small enough."""
    first = [experiment.runs[0] for experiment in contents.experiments]
    others = [run for experiment in contents.experiments for run in experiment.runs[1:]]
    pictures: dict[RunRecord, str] = {}
    left = PICTURE_BYTES
    for run in [*first, *others]:
        path = run.path / "mistakes.png"
        if path.is_file() and path.stat().st_size <= left:
            data = path.read_bytes()
            left -= len(data)
            pictures[run] = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return pictures


def told(contents: Contents, *, claims: bool = False) -> str:
    """For a terminal: all tables, with `claims` their claims too, then the runs without a result and why."""
    parts = [SEPARATE.format(count=len(contents.sections))] if len(contents.sections) > 1 else []
    numbers = [title for title in SHORT if title not in TEXT_COLUMNS]
    for section in contents.sections:
        parts += [section.protocol] if len(contents.sections) > 1 else []
        cells = [[COLUMNS[title](ranked) for title in SHORT] for ranked in section.ranked]
        parts.append(table(cells, SHORT, numbers=numbers))
        if claims and section.claims:
            rows = [(claim.title, claim.verdict, claim.differences, claim.why) for claim in section.claims]
            parts.append(table(rows, ("claim", "verdict", "difference in points (95 % interval)", "why")))
    lines = [f"{r.label}: {r.state}{f', {r.reason}' if r.reason else ''}" for r in contents.attention]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def markdown(contents: Contents) -> str:
    """Tables, claims, figures by name, and how to train each experiment again."""
    lines = ["# Report", ""]
    if len(contents.sections) > 1:
        lines += [SEPARATE.format(count=len(contents.sections)), ""]
    for section in contents.sections:
        lines += [f"## {_plain(section.protocol)}", ""]
        lines += _table(list(COLUMNS), [[cell(ranked) for cell in COLUMNS.values()] for ranked in section.ranked])
        if section.claims:
            lines += ["", "### Claims", ""]
            rows = [[claim.title, claim.verdict, claim.differences, claim.why] for claim in section.claims]
            lines += _table(["claim", "verdict", "difference of test errors (95 % interval)", "why"], rows)
        lines += ["", "### Figures", ""] if section.figures or len(section.ranked) > 1 else []
        lines += [f"![Test error](plots/{section.slug}.svg)"] if len(section.ranked) > 1 else []
        lines += [f"![{_plain(figure.title)}](plots/{figure.name}.svg)" for figure in section.figures]
        lines += [f"- {_plain(missing)}" for missing in section.missing]
        lines += [""]
    if contents.attention:
        lines += ["## Incomplete, failed and damaged runs", ""]
        lines += _table(["run", "state", "reason"], [[r.label, r.state, r.reason or ""] for r in contents.attention])
        lines += [""]
    lines += ["## Train it again", ""]
    for section in contents.sections:
        for ranked in section.ranked:
            lines += [f"{_plain(ranked.label)}:", "", f"    {ranked.experiment.runs[0].command}", ""]
    lines += ["## Notes", "", *(f"- {note}" for note in NOTES), ""]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' if title in TEXT_COLUMNS or title not in COLUMNS else '---:' for title in head)}|"
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _plain(text: str) -> str:
    """Text without meaning to Markdown or HTML, in one line."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def results_csv(contents: Contents) -> str:
    """One line a run, every one of them; fractions and seconds, not percent and minutes."""
    places = {
        run: (ranked.rank, section.protocol)
        for section in contents.sections
        for ranked in section.ranked
        for run in ranked.experiment.runs
    }
    rows = [_row(run, *places.get(run, (None, None))) for run in contents.ordered]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _row(run: RunRecord, rank: str | None, protocol: str | None) -> dict[str, Value]:
    return {
        "rank": rank,
        "name": run.name,
        "experiment": run.identity if run.recipe else None,
        "seed": run.seed if run.recipe else None,
        "state": run.state,
        "test_error": run.test_error,
        "test_count": run.test_count or None,
        "val_error": run.val_error,
        **{key: run.figure(key) for key in NUMBERS},
        "strategy": run.word("strategy"),
        "path": str(run.path),
        "reason": run.reason,
        "protocol": protocol,
    }


def _cell(value: Value) -> Value:
    """Numbers as they are; text that a spreadsheet would compute as text."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else round(value, 10)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
