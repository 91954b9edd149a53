"""report.md and results.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from cifar_lab.report.contents import COLUMNS, NOTES, SEPARATE, TEXT_COLUMNS, Contents
from cifar_lab.report.groups import identity
from cifar_lab.report.record import RunRecord
from cifar_lab.report.reproduce import command

Value = str | int | float | None


def markdown(contents: Contents) -> str:
    """Tables, claims, figures by name, and how to train each experiment again."""
    lines = ["# Report", ""]
    if len(contents.sections) > 1:
        lines += [SEPARATE.format(count=len(contents.sections)), ""]
    for section in contents.sections:
        lines += [f"## {_plain(section.protocol)}", ""]
        lines += _table([title for title, _ in COLUMNS], [[cell(r) for _, cell in COLUMNS] for r in section.ranked])
        if section.claims:
            lines += ["", "### Claims", ""]
            rows = [[claim.title, claim.verdict, claim.differences, claim.why] for claim in section.claims]
            lines += _table(["claim", "verdict", "difference of test errors (95 % interval)", "why"], rows)
        lines += ["", "### Figures", ""] if section.figures or len(section.rows) > 1 else []
        lines += [f"![Test error](plots/{section.slug}.svg)"] if len(section.rows) > 1 else []
        lines += [f"![{_plain(figure.title)}](plots/{figure.name}.svg)" for figure in section.figures]
        lines += [f"- {_plain(missing.describe())}" for missing in section.missing]
        lines += [""]
    if contents.attention:
        lines += ["## Incomplete, failed and damaged runs", ""]
        lines += _table(["run", "state", "reason"], [[r.label, r.state, r.reason or ""] for r in contents.attention])
        lines += [""]
    lines += ["## Train it again", ""]
    for section in contents.sections:
        for ranked in section.ranked:
            lines += [f"{_plain(ranked.label)}:", "", f"    {command(ranked.experiment.runs[0])}", ""]
    lines += ["## Notes", "", *(f"- {note}" for note in NOTES), ""]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' if title in TEXT_COLUMNS or title not in dict(COLUMNS) else '---:' for title in head)}|"
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _plain(text: str) -> str:
    """Text without meaning to Markdown or HTML, in one line."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def results_csv(contents: Contents) -> str:
    """One line a run, every one of them; fractions and seconds, not percent and minutes."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in _rows(contents):
        if writer is None:
            writer = csv.DictWriter(buffer, fieldnames=list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return buffer.getvalue()


def _rows(contents: Contents) -> Iterator[dict[str, Value]]:
    places = {
        id(run): (ranked.rank, section.protocol)
        for section in contents.sections
        for ranked in section.ranked
        for run in ranked.experiment.runs
    }
    for run in contents.ordered:
        yield {"rank": places.get(id(run), (None,))[0], **_row(run), "protocol": places.get(id(run), (None, None))[1]}


def _row(run: RunRecord) -> dict[str, Value]:
    numbers = (
        "num_parameters", "flops_per_image", "epochs", "steps", "images_per_second", "peak_memory_bytes",
        "wall_seconds", "num_train", "world_size", "micro_batch",
    )  # fmt: skip
    return {
        "name": run.name,
        "experiment": identity(run) if run.recipe else None,
        "seed": run.seed if run.recipe else None,
        "state": run.state,
        "test_error": run.test_error,
        "test_count": run.test_count or None,
        "val_error": run.val_error,
        **{key: run.figure(key) for key in numbers},
        "strategy": run.word("strategy"),
        "path": str(run.path),
        "reason": run.reason,
    }


def _cell(value: Value) -> Value:
    """Numbers as they are; text that a spreadsheet would compute as text."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else round(value, 10)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
