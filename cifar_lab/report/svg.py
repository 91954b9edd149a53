"""Curves as SVG: small, sharp, coloured by style sheet, so that one drawing serves light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files

from cifar_lab.report.curves import Numbers
from cifar_lab.report.figure import Axis, Figure, Line

LOOKS = 6
DASHES = ("", "9 4", "2 4", "9 4 2 4", "5 2", "1 3")
DASHED = "6 4"
MARKERS_A_LINE = 6
# Widths in ems, on the wide side, since the font is not known: DejaVu Sans.
NARROW, WIDE = frozenset("iljtfrI.,:;'|!()[]- "), frozenset("mwMW%@—")


@dataclass(frozen=True)
class Size:
    """Width and height in user units; where no title is wanted, the plot takes its place."""

    width: int = 520
    height: int = 320
    titled: bool = True


@dataclass(frozen=True)
class _Frame:
    """The plot's rectangle and its axes."""

    left: float
    top: float
    right: float
    bottom: float
    x: Axis
    y: Axis

    def points(self, x: Numbers, y: Numbers) -> list[tuple[float, float]]:
        across = self.left + (x - self.x.low) / (self.x.high - self.x.low) * (self.right - self.left)
        down = self.bottom - (y - self.y.low) / (self.y.high - self.y.low) * (self.bottom - self.top)
        return list(zip(across.tolist(), down.tolist(), strict=True))


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


@cache
def asset(name: str) -> str:
    """A style sheet or script that is part of the package."""
    return (files("cifar_lab.report") / "assets" / name).read_text(encoding="utf-8")


def standalone(body: str, figure_title: str) -> str:
    """A drawing as a file of its own, with its colours."""
    head, _, rest = body.partition(">")
    light, dark = (_coloured(theme) for theme in asset("theme.css").split("@media"))
    style = (
        f"<style>:root {{ color-scheme: light dark; }}\n{light}@media (prefers-color-scheme: dark) {{\n{dark}}}</style>"
    )
    paper = '<rect class="paper" width="100%" height="100%"/>'
    namespace = ' xmlns="http://www.w3.org/2000/svg"'
    title = f"<title>{escape(figure_title)}</title>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}{namespace}>{title}{style}{paper}{rest}\n'


def _coloured(theme: str) -> str:
    """The style of charts in the colours of `theme` as they are, since many programs that convert SVG know no var()."""
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", theme))
    return re.sub(r"var\(--([\w-]+)\)", lambda name: colours[name[1]], asset("chart.css"))


def draw(figure: Figure, size: Size | None = None) -> str:
    """One figure as an <svg> element."""
    size = size or Size()
    lines = [line for line in figure.lines if len(line.x)]
    x, y = figure.x_axis(), figure.y_axis()
    top = 26.0 if size.titled else 8.0
    legend, top = _legend([line for line in lines if line.label], size, top, _split_by_dash(lines))
    ticks_width = max(text_width(y.text(tick)) for tick in y.ticks)
    frame = _Frame(ticks_width + (30 if figure.y_title else 12), top + 10, size.width - 18.0, size.height - 44.0, x, y)
    parts = [
        _title(figure.title, size),
        *legend,
        *_axes(frame, figure),
        _window(frame),
        *(part for line in lines for part in _band(frame, line)),
        *(part for line in lines for part in _curve(frame, line, _dash(line, lines))),
        "</svg>",
    ]
    box = f"{frame.left:.1f} {frame.top:.1f} {frame.right:.1f} {frame.bottom:.1f}"
    ranges = f'data-x="{x.low:.6g} {x.high:.6g}" data-y="{y.low:.6g} {y.high:.6g}"'
    return (
        f'<svg class="chart" viewBox="0 0 {size.width} {size.height}" role="img"'
        f' aria-label="{escape(_spoken(figure, lines))}" data-box="{box}" {ranges}'
        f' data-x-title="{escape(figure.x_title)}">{"".join(parts)}</svg>'
    )


def _title(title: str, size: Size) -> str:
    return f'<text class="title" x="4" y="18">{escape(shortened(title, size.width, 15))}</text>' if size.titled else ""


def _window(frame: _Frame) -> str:
    """Cuts off what is above the plot; markers on its other edges stay whole."""
    box = frame.left - 6, frame.top, frame.right - frame.left + 12, frame.bottom - frame.top + 6
    x, y, width, height = (f"{value:.1f}" for value in box)
    return f'<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{x} {y} {width} {height}">'


def _spoken(figure: Figure, lines: Sequence[Line]) -> str:
    """What the picture shows, for those who do not see it."""
    ends = "; ".join(f"{line.label or figure.title} ends at {line.y[-1]:.4g}" for line in lines if not line.faint)
    return f"{figure.title} over {figure.x_title}. {ends}."


def _split_by_dash(lines: Sequence[Line]) -> bool:
    return any(line.dashed for line in lines)


def _dash(line: Line, lines: Sequence[Line]) -> str:
    if line.dashed:
        return DASHED
    return "" if _split_by_dash(lines) else DASHES[line.look % LOOKS]


def _legend(lines: Sequence[Line], size: Size, top: float, split: bool) -> tuple[list[str], float]:
    """Entries in as many rows as they need, and where the rows end."""
    parts: list[str] = []
    x, y = 4.0, top + 12
    for line in lines:
        text = shortened(line.label, size.width - 50)
        width = 36 + text_width(text) + 14
        if x > 4 and x + width > size.width:
            x, y = 4.0, y + 19
        dash = _dash(line, lines)
        parts.append(
            f'<path class="curve s{line.look % LOOKS}" d="M{x:.1f} {y - 4.5:.1f}h30"{_dashes(dash)}/>'
            f"{_markers([(x + 15, y - 4.5)], line.look)}"
            f'<text class="name" x="{x + 36:.1f}" y="{y:.1f}">{escape(text)}</text>'
        )
        x += width
    return parts, y + 4 if lines else top


def _axes(frame: _Frame, figure: Figure) -> Iterator[str]:
    for tick in frame.y.ticks:
        y = frame.bottom - (tick - frame.y.low) / (frame.y.high - frame.y.low) * (frame.bottom - frame.top)
        yield f'<path class="grid" d="M{frame.left:.1f} {y:.1f}H{frame.right:.1f}"/>'
        yield f'<text x="{frame.left - 7:.1f}" y="{y + 4.5:.1f}" text-anchor="end">{frame.y.text(tick)}</text>'
    yield f'<path class="axis" d="M{frame.left:.1f} {frame.bottom:.1f}H{frame.right:.1f}"/>'
    for tick in frame.x.ticks:
        x = frame.left + (tick - frame.x.low) / (frame.x.high - frame.x.low) * (frame.right - frame.left)
        yield f'<path class="axis" d="M{x:.1f} {frame.bottom:.1f}v4"/>'
        yield f'<text x="{x:.1f}" y="{frame.bottom + 18:.1f}" text-anchor="middle">{frame.x.text(tick)}</text>'
    middle = (frame.left + frame.right) / 2
    yield f'<text x="{middle:.1f}" y="{frame.bottom + 36:.1f}" text-anchor="middle">{escape(figure.x_title)}</text>'
    if figure.y_title:
        middle = (frame.top + frame.bottom) / 2
        turned = f"translate(13 {middle:.1f}) rotate(-90)"
        yield f'<text transform="{turned}" text-anchor="middle">{escape(figure.y_title)}</text>'


def _band(frame: _Frame, line: Line) -> Iterator[str]:
    if len(line.low):
        there, back = frame.points(line.x, line.high), frame.points(line.x, line.low)[::-1]
        yield f'<path class="band f{line.look % LOOKS}" d="M{_path([*there, *back])}Z"/>'


def _curve(frame: _Frame, line: Line, dash: str) -> Iterator[str]:
    points = frame.points(line.x, line.y)
    kind = f"curve s{line.look % LOOKS}{' faint' if line.faint else ''}"
    label = "" if line.faint else f' data-label="{escape(line.label)}"'
    yield f'<polyline class="{kind}"{label} points="{_path(points)}"{_dashes(dash)}/>'
    if line.faint:
        return
    # Markers of different lines at different places.
    every = max(1, len(points) // MARKERS_A_LINE)
    yield _markers(points[(line.look * every // 3) % every :: every] if len(points) > 1 else points, line.look)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _dashes(dash: str) -> str:
    return f' stroke-dasharray="{dash}"' if dash else ""


def _markers(points: Sequence[tuple[float, float]], look: int) -> str:
    """Circles, squares, triangles, diamonds, ... as one path."""
    shapes = (
        "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0",
        "m-3.3 -3.3h6.6v6.6h-6.6z",
        "m0 -4.4l4.2 7.4h-8.4z",
        "m0 -4.8l4.4 4.8l-4.4 4.8l-4.4 -4.8z",
        "m-4.2 -3l4.2 7.4l4.2 -7.4z",
        "m-3.6 0l2 -3.4h3.2l2 3.4l-2 3.4h-3.2z",
    )
    path = "".join(f"M{x:.1f} {y:.1f}{shapes[look % LOOKS]}" for x, y in points)
    return f'<path class="f{look % LOOKS}" d="{path}"/>'
