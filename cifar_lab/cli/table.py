"""Rows as a table by rich: folded to the width of a terminal, whole and a line each in a pipe."""

import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import compress


def table(
    rows: Iterable[Sequence[str]], headings: Sequence[str] = (), *, numbers: Collection[str] = (), gap: int = 2
) -> str:
    """The text; columns whose headings are among `numbers` are set to the right. Nothing is cut.

    A column with a heading in which every cell is empty or "-" tells nothing and is left out.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    if headings and rows:
        kept = [any(row[i] not in ("", "-") for row in rows) for i in range(len(headings))]
        headings, *rows = (list(compress(row, kept)) for row in [headings, *rows])
    cells = [[Text(cell) for cell in row] for row in rows]
    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), show_header=bool(headings), header_style="")
    for heading in headings or [""] * max(map(len, cells), default=0):
        made.add_column(Text(heading), overflow="fold", justify="right" if heading in numbers else "left")
    for row in cells:
        made.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 10_000, color_system=None)
    with console.capture() as written:
        console.print(made)
    return "\n".join(line.rstrip() for line in written.get().splitlines())
