"""The same figures as PNG by matplotlib, for slides and papers; it is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cifar_lab.report.figure import Figure
from cifar_lab.report.ranking import Row, range_of
from cifar_lab.report.svg import shortened, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = ("#0072b2", "#d55e00", "#008a63", "#a8528a", "#8a6d00", "#3d4652")
MARKERS = ("o", "s", "^", "D", "v", "h")
DASHES: tuple[Any, ...] = ("-", (0, (6, 3)), (0, (1.5, 3)), (0, (6, 3, 1.5, 3)), (0, (4, 2)), (0, (1, 2)))
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "text.parse_math": False,
}
# Room for names in the ranking, in the units of text_width: 0.42 of the width.
LABEL = 270.0
# Quick to write and a tenth larger than the best.
PNG = {"compress_level": 2}


def curves_png(figure: Figure) -> bytes:
    """The PNG of one figure of curves."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        canvas, axes = _canvas(6.4, 4.0)
        lines = [line for line in figure.lines if len(line.x)]
        split = any(line.dashed for line in lines)
        for line in lines:
            colour = COLOURS[line.look % len(COLOURS)]
            if len(line.low):
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(
                line.x,
                line.y,
                color=colour,
                linestyle=DASHES[4] if line.dashed else "-" if split else DASHES[line.look % len(DASHES)],
                marker=MARKERS[line.look % len(MARKERS)],
                markevery=max(1, len(line.x) // 6),
                label=line.label,
            )
        x, y = figure.x_axis(), figure.y_axis()
        axes.set(xlim=(x.low, x.high), ylim=(y.low, y.high), xlabel=figure.x_title, ylabel=figure.y_title)
        axes.set_xticks(x.ticks, [x.text(tick) for tick in x.ticks])
        axes.set_yticks(y.ticks, [y.text(tick) for tick in y.ticks])
        axes.set_title(figure.title)
        canvas.subplots_adjust(left=0.11, right=0.97, bottom=0.13, top=0.92)
        axes.legend(loc="upper right", ncols=2 if len(lines) > 3 else 1, fontsize=8 if len(lines) > 3 else 9)
        return _saved(canvas)


def ranking_png(shown: Sequence[Row], title: str) -> bytes:
    """The PNG of the ranked errors."""
    import matplotlib as mpl

    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        height = 1.1 + 0.28 * len(shown)
        canvas, axes = _canvas(7.2, height)
        scale = range_of(shown)
        for index, row in enumerate(shown):
            axes.plot([max(row.low, scale.low), min(row.high, scale.high)], [index, index], color=COLOURS[0])
            axes.plot(row.seeds, [index] * len(row.seeds), "o", color=COLOURS[0], alpha=0.45, markeredgewidth=0)
            axes.plot([row.mean], [index], "D", color=COLOURS[0], markersize=7, markeredgecolor="white")
            axes.text(1.015, index, f"{row.mean:.2f} %", va="center", transform=axes.get_yaxis_transform())
        labels = [shortened(row.label, LABEL) for row in shown]
        axes.set_yticks(range(len(shown)), labels)
        axes.set_xticks(scale.ticks, [scale.text(tick) for tick in scale.ticks])
        axes.set(xlim=(scale.low, scale.high), ylim=(len(shown) - 0.5, -0.5), xlabel="test error (%)")
        canvas.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
        left = 0.04 + max(map(text_width, labels)) / LABEL * 0.42
        canvas.subplots_adjust(left=left, right=0.88, bottom=0.55 / height, top=1 - 0.35 / height)
        return _saved(canvas)


def _canvas(width: float, height: float) -> tuple[Canvas, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), dpi=150)
    FigureCanvasAgg(canvas)
    return canvas, canvas.subplots()


def _saved(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", pil_kwargs=PNG)
    return buffer.getvalue()
