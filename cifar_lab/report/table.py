"""The runs as a text table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cifar_lab.report.read import RunRecord

MISSING = "-"

Column = tuple[str, Callable[[RunRecord], str]]


def table(records: Sequence[RunRecord]) -> str:
    """One aligned line a run, and below them the reason of each run that is not completed."""
    rows = [[title for title, _ in COLUMNS]] + [[cell(record) for _, cell in COLUMNS] for record in records]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_align(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [f"{record.label}: {record.state}, {record.reason}" for record in records if record.reason]
    return "\n".join(lines)


def _align(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Text to the left, numbers to the right."""
    return [
        cell.ljust(width) if title in TEXT_COLUMNS else cell.rjust(width)
        for (title, _), cell, width in zip(COLUMNS, row, widths, strict=True)
    ]


def _format(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, (int, float)) else MISSING


def _percent(value: float | None, *, complement: bool = False) -> str:
    if value is None:
        return MISSING
    return f"{1 - value if complement else value:.2%}"


def _parameters(record: RunRecord) -> str:
    count = record.summary.get("num_parameters")
    if not isinstance(count, int):
        return MISSING
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"


def _time(record: RunRecord) -> str:
    seconds = record.summary.get("wall_seconds")
    if not isinstance(seconds, (int, float)):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


COLUMNS: tuple[Column, ...] = (
    ("run", lambda record: record.label),
    ("model", lambda record: record.model or MISSING),
    ("test accuracy", lambda record: _percent(record.result("test", "accuracy"))),
    ("test loss", lambda record: _format(record.result("test", "loss"), "{:.4f}")),
    ("val error", lambda record: _percent(record.result("val", "accuracy"), complement=True)),
    ("params", _parameters),
    ("epochs", lambda record: _format(record.summary.get("epochs"), "{:g}")),
    ("images/s", lambda record: _format(record.summary.get("images_per_second"), "{:,.0f}")),
    ("time", _time),
    ("state", lambda record: record.state),
)
TEXT_COLUMNS = ("run", "model", "state")
