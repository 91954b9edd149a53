"""Curves and rankings as SVG: small, sharp, coloured by style sheet, so that one drawing serves light and dark."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_lab.report import contents, other_sets, wording
from cifar_lab.report.calibration import Calibration
from cifar_lab.report.figure import Figure, Line, axis
from cifar_lab.report.groups import Ranked

if TYPE_CHECKING:
    from jinja2 import Environment

# Of a file, of a run, and of the page on a desk and on a phone.
LARGE, SMALL, DESK, PHONE = (440, 330), (360, 230), (1200, 400), (340, 300)
# Of a line of text, and above the plot of a figure with two lines of legend; more make the figure higher.
TEXT, USUAL = 19, 71
# Of a title's letters, as wide as those of 15 px in bold are.
BOLD = 16.5
# Of a ranking.
ROW, TOP, BOTTOM = 26, 40, 46
RANKING = "Test error, the lowest first"
SHOWN = 40
LOOKS = 6
DASHES = ("", "9 4", "2 4", "9 4 2 4", "5 2", "1 3")
DASHED = "6 4"
MARKERS = (
    "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0",
    "m-3.3 -3.3h6.6v6.6h-6.6z",
    "m0 -4.4l4.2 7.4h-8.4z",
    "m0 -4.8l4.4 4.8l-4.4 4.8l-4.4 -4.8z",
    "m-4.2 -3l4.2 7.4l4.2 -7.4z",
    "m-3.6 0l2 -3.4h3.2l2 3.4l-2 3.4h-3.2z",
)
MARKERS_A_LINE = 6
# Widths in ems, on the wide side, since the font is not known: DejaVu Sans.
NARROW, WIDE = frozenset("iljtfrI.,:;'|!()[]- "), frozenset("mwMW%@—")


def text_width(text: str, size: float = 13) -> float:
    """About how wide a text is, rather too wide."""
    ems = (0.37 if c in NARROW else 0.98 if c in WIDE else 0.72 if c.isupper() else 0.63 for c in text)
    return size * sum(ems)


def shortened(text: str, width: float, size: float = 13) -> str:
    """`text`, cut off with an ellipsis where it is wider than `width`."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, width: float, lines: int, size: float = 13) -> list[str]:
    """`text` in up to so many lines, broken at spaces where there are some; the last one is cut off where it must."""
    found: list[str] = []
    while len(found) < lines - 1 and text_width(text, size) > width:
        fits = max(1, len(shortened(text, width, size)) - 1)
        end = text.rfind(" ", 1, fits + 1)
        end = fits if end < 0 else end
        found.append(text[:end].strip())
        text = text[end:].strip()
    return [*found, shortened(text, width, size)]


@cache
def templates() -> Environment:
    """Those of a report's files; what is shown is escaped, but in Markdown."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("cifar_lab.report", "assets"),
        autoescape=lambda name: name is not None and not name.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"px": "{:.1f}".format, "plain": plain}
    made.globals |= {"wording": wording, "texts": contents, "draw": draw, "draw_ranking": draw_ranking}
    made.globals |= {"draw_reliability": draw_reliability, "other_sets": other_sets}
    return made


def plain(text: str) -> str:
    """Text without meaning to Markdown or HTML, in one line."""
    return " ".join(re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text).split())


def standalone(body: str, figure_title: str) -> str:
    """A drawing as a file of its own, with its colours and its background."""
    head, _, rest = body.partition(">")
    light, dark = (_coloured(theme) for theme in templates().get_template("theme.css").render().split("@media"))
    style = (
        f"<style>:root {{ color-scheme: light dark; }}\n{light}@media (prefers-color-scheme: dark) {{\n{dark}}}</style>"
    )
    paper = '<rect class="paper" width="100%" height="100%"/>'
    width, height = re.findall(r'viewBox="0 0 (\d+) (\d+)"', head)[0]
    # Shown in this size where there is room for it: not as wide as the page.
    size = f' xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    title = f"<title>{escape(figure_title)}</title>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}{size}>{title}{style}{paper}{rest}\n'


def _coloured(theme: str) -> str:
    """The style of charts in the colours of `theme` as they are, since many programs that convert SVG know no var()."""
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", theme))
    return re.sub(r"var\(--([\w-]+)\)", lambda name: colours[name[1]], templates().get_template("chart.css").render())


def draw(figure: Figure, size: tuple[int, int] = LARGE) -> str:
    """One figure as an <svg> element, of `size` or higher where the legend needs it."""
    x, y = figure.x_axis(), figure.y_axis()
    # The last of a look, the solid one, stands for all.
    entries = {(line.look, line.label or line.kind): line for line in figure.lines if line.name}
    title = wrapped(figure.title, size[0], 2, BOLD)
    legend, top = _legend(list(entries.values()), size[0], 38.0 + TEXT * (len(title) - 1))
    top += TEXT if y.log else 0
    size = size[0], size[1] + int(max(top - USUAL, 0))
    left = max(text_width(y.text(tick)) for tick in y.ticks) + (30 if figure.y_title else 12)
    right, bottom = size[0] - 18.0, size[1] - 44.0
    split = any(line.dashed for line in figure.lines)
    curves: list[dict[str, Any]] = []
    for line in figure.lines:
        across = x.place(line.x, left, right).tolist()
        points = list(zip(across, y.place(line.y, bottom, top).tolist(), strict=True))
        # As close together as a pointer can tell them apart; on a phone no seeds, since each is a second drawing.
        told = np.unique(np.linspace(0, len(points) - 1, min(len(points), size[0] // 16)).round().astype(int))
        told = told[: 0 if line.faint and (size[0] == PHONE[0] or not line.name) else None]
        # Markers of different lines at different places.
        every = max(1, len(points) // MARKERS_A_LINE)
        marked = points[(line.look * every // 3) % every :: every] if len(points) > 1 else points
        curves.append(
            {
                "line": line,
                "look": line.look % LOOKS,
                "points": _path(points),
                "values": [(*points[i], figure.told(line, i)) for i in told.tolist()],
                "dash": DASHED if line.dashed else "" if split else DASHES[line.look % LOOKS],
                "markers": "" if line.faint else _markers(marked, line.look),
            }
        )
    lowest = 0.0
    alone = [curve for curve in curves if curve["values"] and len(curve["line"].x) == 1]
    for curve in sorted(alone, key=lambda curve: curve["values"][0][1]):
        lowest = curve["text"] = max(curve["values"][0][1] + 4.5, lowest + TEXT)
    return templates().get_template("chart.svg.j2").render(
        figure=figure, title=title, size=size, x=x, y=y, left=left, top=top, right=right, bottom=bottom, curves=curves,
        legend=legend, markers=MARKERS,
    )  # fmt: skip


def _legend(lines: Sequence[Line], width: float, y: float) -> tuple[dict[Line, tuple[float, float, list[str]]], float]:
    """Where each entry begins, from `y` down, its lines of text, in as many rows as needed; where the plot begins."""
    places: dict[Line, tuple[float, float, list[str]]] = {}
    x = 4.0
    for line in lines:
        texts = wrapped(line.label or line.kind, width - 50, 3)
        needed = 50 + text_width(texts[0])
        if x > 4 and x + needed > width:
            x, y = 4.0, y + TEXT
        places[line] = x, y, texts
        # Nothing stands beside an entry of several lines.
        x, y = x + (needed if len(texts) == 1 else width), y + TEXT * (len(texts) - 1)
    return places, y + (14 if lines else -2)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _markers(points: Sequence[tuple[float, float]], look: int) -> str:
    """Circles, squares, triangles, diamonds, ... as one path."""
    return "".join(f"M{x:.1f} {y:.1f}{MARKERS[look % LOOKS]}" for x, y in points)


def draw_ranking(ranked: Sequence[Ranked], title: str = RANKING, width: int = 390) -> str:
    """The best `SHOWN`, every seed a dot, the mean a diamond, its whole interval a line, as an <svg> element."""
    shown = ranked[:SHOWN]
    ends = [value for row in shown for value in (row.low, row.high, *row.experiment.sample.errors)]
    scale = axis(100 * min(ends), 100 * max(ends))
    left = min(max(text_width(row.label) for row in shown) + 16, width * 0.5)
    if len(ranked) > SHOWN:
        title = f"{title}: {SHOWN} of {len(ranked)}"

    def place(error: float) -> float:
        return float(scale.place(100 * error, left, width - 66.0))

    # A number at every so many ticks, where they stand too close together for one at each.
    needed = sum(text_width(scale.text(tick)) + 6 for tick in scale.ticks)
    every = math.ceil(needed / (width - 66 - left))
    names = [wrapped(one.label, left - 12, 1 if text_width(one.label) <= left - 12 else 4, 11) for one in shown]
    row = max(ROW, 2 + 12 * max(map(len, names)))
    return templates().get_template("ranking.svg.j2").render(
        shown=shown, title=title, scale=scale, place=place, left=left, width=width, every=every, row=row, top=TOP,
        bottom=TOP + row * len(shown), height=TOP + row * len(shown) + BOTTOM, names=names,
    )  # fmt: skip


def draw_reliability(one: Calibration) -> str:
    """Accuracy and number of answers in each bin of confidence, as an <svg> element."""
    left, right, top, bottom, base = 50, 282, 52, 236, 288
    return templates().get_template("reliability.svg.j2").render(
        one=one, title=shortened(one.title, 296, BOLD), width=300, height=base + 46, left=left, right=right, top=top,
        bottom=bottom, base=base, most=one.counts.max(), across=lambda share: left + (right - left) * share,
        down=lambda share: bottom - (bottom - top) * share,
    )  # fmt: skip
