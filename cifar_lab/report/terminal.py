"""The report without a browser: ranked tables, checked claims, and the runs without a result."""

from __future__ import annotations

from cifar_lab.cli.table import table
from cifar_lab.report.contents import COLUMNS, SEPARATE, TEXT_COLUMNS, Contents, Section

SHORT = ("rank", "experiment", "test error", "seeds", "val error", "parameters", "epochs", "images/s", "wall time")


def told(contents: Contents, *, claims: bool = False) -> str:
    """The tables of all protocols, with `claims` their claims too, then the runs without a result and why."""
    parts = [SEPARATE.format(count=len(contents.sections))] if len(contents.sections) > 1 else []
    for section in contents.sections:
        parts += [section.protocol] if len(contents.sections) > 1 else []
        parts.append(_ranked(section))
        if claims and section.claims:
            rows = [(claim.title, claim.verdict, claim.differences, claim.why) for claim in section.claims]
            parts.append(table(rows, ("claim", "verdict", "difference in points (95 % interval)", "why")))
    lines = [f"{r.label}: {r.state}{f', {r.reason}' if r.reason else ''}" for r in contents.attention]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def _ranked(section: Section) -> str:
    columns = [(title, cell) for title, cell in COLUMNS if title in SHORT]
    titles = [title for title, _ in columns]
    numbers = [title for title in titles if title not in TEXT_COLUMNS]
    return table([[cell(ranked) for _, cell in columns] for ranked in section.ranked], titles, numbers=numbers)
