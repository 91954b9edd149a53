"""All files of a report, and what a terminal shows of it."""

import base64
import csv
import io
import time
from pathlib import Path

from cifar_lab.cli.table import table
from cifar_lab.files import atomic
from cifar_lab.report.contents import SEPARATE, TEXT_COLUMNS, Contents
from cifar_lab.report.other_sets import HEADINGS
from cifar_lab.report.page import page
from cifar_lab.report.record import RunRecord
from cifar_lab.report.svg import RANKING, draw, draw_ranking, draw_reliability, standalone, templates

# A sheet of 64 mistakes has about 1 MB; the page has to open on a phone.
PICTURE_BYTES = 8_000_000
Value = str | int | float | None
NUMBERS = (
    "num_parameters", "flops_per_image", "epochs", "steps", "images_per_second", "peak_memory_bytes",
    "wall_seconds", "num_train", "world_size", "micro_batch",
)  # fmt: skip
# Of COLUMNS, those that 80 characters have room for.
SHORT = ("rank", "experiment", "test error", "seeds", "val error", "parameters", "wall time")


def write_report(contents: Contents, out: Path) -> Path:
    """Write report.html, report.md, results.csv and plots/; returns the page's path. Raises OSError."""
    started = time.time()
    (out / "plots").mkdir(parents=True, exist_ok=True)
    texts = {"results.csv": results_csv(contents), "report.md": markdown(contents)}
    for section in contents.sections:
        if len(section.ranked) > 1:
            texts[f"plots/{section.slug}.svg"] = standalone(draw_ranking(section.ranked), RANKING)
        for figure in section.figures:
            texts[f"plots/{figure.name}.svg"] = standalone(draw(figure), figure.title)
        for one in section.calibrations:
            texts[f"plots/{one.name}.svg"] = standalone(draw_reliability(one), one.title)
    texts["report.html"] = page(contents, _pictures(contents), started)
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
    """For a terminal: headline, tables, with `claims` their claims too, then the runs without a result and why."""
    parts = [_lines(contents.headline)]
    parts += [_lines(SEPARATE.format(count=len(contents.sections)))] if len(contents.sections) > 1 else []
    numbers = [title for title in SHORT if title not in TEXT_COLUMNS]
    for section in contents.sections:
        parts += [_lines(section.protocol)] if len(contents.sections) > 1 else []
        parts.append("\n".join([table(section.cells(SHORT), SHORT, numbers=numbers), *map(_lines, section.marked)]))
        if claims and section.claims:
            heads = ("claim", "verdict", "difference in points (95 % interval)", "why")
            parts += [table(section.told_claims, heads), *([_lines(section.missing)] if section.missing else [])]
    if contents.other_sets:
        headings, *rows = contents.other_sets
        parts.append(table(rows, headings, numbers=HEADINGS[2:]))
    if claims and contents.verdicts:
        parts.append(_lines(*contents.verdicts))
    lines = [f"{r.label}: {r.state}{f', {r.reason}' if r.reason else ''}" for r in contents.attention]
    return "\n\n".join([*parts, *([_lines(*lines)] if lines else [])])


def _lines(*texts: str) -> str:
    """Texts, broken between words where a terminal's line ends."""
    return table([text] for text in texts)


def markdown(contents: Contents) -> str:
    """Tables, claims, figures by name, and how to train each experiment again."""
    return templates().get_template("report.md.j2").render(contents=contents)


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
        **{key: run.balanced.get(key) for key in ("balanced_accuracy", "macro_f1")},
        "val_error": run.val_error,
        **{key: run.figure(key) for key in NUMBERS},
        "micro_batch": run.micro_batches or run.figure("micro_batch"),
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
