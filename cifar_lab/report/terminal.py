"""The report without a browser: a ranked table, and a few runs side by side with their curves."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import TextIO

import yaml

from cifar_lab.report import wording
from cifar_lab.report.contents import COLUMNS, SEPARATE, TEXT_COLUMNS, Contents, Section
from cifar_lab.report.curves import Numbers
from cifar_lab.report.figure import Figure, Line
from cifar_lab.report.flat import differing, flat
from cifar_lab.report.record import RunRecord
from cifar_lab.report.study import training_loss, validation_error

HEIGHT = 12
LONGEST = 44
FEWEST_COLUMNS, MOST_COLUMNS = 40, 120
NOT_TOLD = ("tracking.", "checkpoint.", "log.", "data.root")
SHORT = ("rank", "experiment", "test error", "seeds", "val error", "parameters", "epochs", "images/s", "wall time")
# SGR codes that are told apart on dark and on light screens.
COLOURS = (34, 31, 32, 35, 36, 33)


def ranked_tables(contents: Contents) -> str:
    """The tables of all protocols in plain text, then the runs without a result, with their reasons."""
    parts = [SEPARATE.format(count=len(contents.sections))] if len(contents.sections) > 1 else []
    for section in contents.sections:
        heading = [section.protocol] if len(contents.sections) > 1 else []
        parts.append("\n".join([*heading, _ranked(section)]))
    lines = [f"{r.label}: {r.state}{f', {r.reason}' if r.reason else ''}" for r in contents.attention]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def _ranked(section: Section) -> str:
    columns = [(title, cell) for title, cell in COLUMNS if title in SHORT]
    rows = [[_short(cell(ranked), LONGEST) for _, cell in columns] for ranked in section.ranked]
    return aligned([title for title, _ in columns], rows, left=TEXT_COLUMNS)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str]) -> str:
    """A table with text to the left and numbers to the right."""
    everything = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if title in left else cell.rjust(width)
            for title, cell, width in zip(head, cells, widths, strict=True)
        ]
        return "  ".join(placed).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])


def side_by_side(records: Sequence[RunRecord], width: int, colour: bool) -> str:
    """Names, differences of the recipes, curves, final numbers."""
    letters = [ascii_lowercase[i % 26] for i in range(len(records))]
    parts = [
        "\n".join(
            f"{_paint(letter, i, colour)}  {_short(r.label, width - 3)}"
            for i, (letter, r) in enumerate(zip(letters, records, strict=True))
        )
    ]
    parts += list(_differences(records, letters, width))
    for title, curves in (
        ("validation error (%)", [validation_error(record) for record in records]),
        ("validation loss", [record.metrics.curve("val", "loss") for record in records]),
        ("training loss", [training_loss(record) for record in records]),
    ):
        if any(len(x) for x, _ in curves):
            parts.append("\n".join(plot(title, curves, letters, width, colour)))
    parts.append(_final(records, letters, width))
    reasons = [
        f"{letter}: {record.state}, {record.reason}"
        for letter, record in zip(letters, records, strict=True)
        if record.reason
    ]
    return "\n\n".join([*parts, *(["\n".join(reasons)] if reasons else [])])


def _differences(records: Sequence[RunRecord], letters: Sequence[str], width: int) -> Iterator[str]:
    """A line a key: its values in all runs."""
    if len(records) < 2:
        return
    recipes = [flat(record.recipe) for record in records]
    keys = [key for key in differing(recipes) if not key.startswith(NOT_TOLD)]
    if len({record.seed for record in records}) > 1:
        keys.insert(0, "seed")
    if not keys:
        yield "the recipes do not differ"
        return
    room = max(6, (width - max(map(len, keys)) - 2 * len(records)) // len(records))
    rows = [[key, *(_short(_value(recipe.get(key)), room) for recipe in recipes)] for key in keys]
    yield aligned(["recipe", *letters], rows, left=("recipe",))


def _value(value: object) -> str:
    if value is None or value == {}:
        return "-"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."


def _final(records: Sequence[RunRecord], letters: Sequence[str], width: int) -> str:
    """Final numbers, as many columns as there is room for."""
    head = ["final", "test error", "val error", "epochs", "images/s", "wall time", "state"]
    rows = [
        [
            letter,
            wording.percent(record.test_error),
            wording.percent(record.val_error),
            wording.plain(record.figure("epochs") or record.metrics.last("train", "epoch")),
            wording.whole(record.figure("images_per_second") or record.metrics.last("train", "images_per_second")),
            wording.duration(record.figure("wall_seconds")),
            record.state,
        ]
        for letter, record in zip(letters, records, strict=True)
    ]
    while True:
        text = aligned(head, rows, left=("final", "state"))
        if len(head) <= 4 or max(map(len, text.splitlines())) <= width:
            return text
        head, rows = [*head[:-2], head[-1]], [[*row[:-2], row[-1]] for row in rows]


def plot(
    title: str, curves: Sequence[tuple[Numbers, Numbers]], letters: Sequence[str], width: int, colour: bool
) -> Iterator[str]:
    """Curves as letters on a grid of characters, `*` where several meet."""
    figure = Figure("", title, [Line(letter, x, y) for letter, (x, y) in zip(letters, curves, strict=True) if len(x)])
    x_axis, y_axis = figure.x_axis(), figure.y_axis()
    margin = max(len(y_axis.text(tick)) for tick in y_axis.ticks) + 2
    columns = max(10, width - margin - 1)
    grid: list[list[int | None]] = [[None] * columns for _ in range(HEIGHT)]
    for index, (x, y) in enumerate(curves):
        for column, value in _sampled(x, y, x_axis.high, columns):
            row = round((y_axis.high - value) / (y_axis.high - y_axis.low) * (HEIGHT - 1))
            if 0 <= row < HEIGHT:
                held = grid[row][column]
                grid[row][column] = index if held in (None, index) else -1
    ticks = {round((y_axis.high - tick) / (y_axis.high - y_axis.low) * (HEIGHT - 1)): tick for tick in y_axis.ticks}
    yield title
    for row, cells in enumerate(grid):
        mark = y_axis.text(ticks[row]) if row in ticks else ""
        drawn = "".join(" " if i is None else "*" if i < 0 else _paint(letters[i], i, colour) for i in cells)
        yield f"{mark.rjust(margin - 2)} |{drawn}".rstrip()
    yield " " * (margin - 1) + "+" + "-" * columns
    last = x_axis.text(x_axis.ticks[-1]) if x_axis.ticks else ""
    at = round(x_axis.ticks[-1] / x_axis.high * (columns - 1)) if x_axis.ticks else 0
    label = "0" + " epoch ".center(max(0, at - len(last))) + last
    yield " " * margin + label[:columns]


def _sampled(x: Numbers, y: Numbers, end: float, columns: int) -> Iterator[tuple[int, float]]:
    """A value for every column that the curve crosses, joined by straight lines."""
    import numpy as np

    if not len(x):
        return
    first, last = (round(float(place) / end * (columns - 1)) for place in (x[0], x[-1]))
    for column in range(max(first, 0), min(last, columns - 1) + 1):
        yield column, float(np.interp(column * end / (columns - 1), x, y))


def _paint(text: str, index: int, colour: bool) -> str:
    return f"\x1b[{COLOURS[index % len(COLOURS)]}m{text}\x1b[0m" if colour else text


def say(text: str, stream: TextIO | None = None) -> None:
    """Print, with what the stream's encoding lacks replaced."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    for character, instead in (("±", "+-"), ("…", "..")):
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            text = text.replace(character, instead)
    print(text.encode(encoding, "replace").decode(encoding), file=stream)


def screen() -> tuple[int, bool]:
    """Columns of the terminal, and whether it shows colours."""
    columns = shutil.get_terminal_size((100, 24)).columns
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
    return min(max(columns, FEWEST_COLUMNS), MOST_COLUMNS), colour
