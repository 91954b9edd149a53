"""The ranked errors as a picture: every seed a dot, the mean a diamond, its 95 % interval a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab.report.figure import Axis, axis
from cifar_lab.report.groups import Experiment
from cifar_lab.report.svg import templates, text_width

WIDTH, ROW, TOP, BOTTOM = 540, 26, 40, 46
SHOWN = 40


@dataclass(frozen=True, eq=False)
class Ranked:
    """One line of a ranked table, with the ends of the interval of its mean error."""

    rank: str
    label: str
    experiment: Experiment
    low: float
    high: float


def range_of(shown: Sequence[Ranked]) -> Axis:
    """An axis, in percent, that holds every mean and seed, and intervals as far as they do not dwarf them."""
    errors = [error for row in shown for error in row.experiment.sample.errors]
    margin = max(0.5 * (max(errors) - min(errors)), 0.02 * max(errors), 0.001)
    low = max(min(row.low for row in shown), min(errors) - margin, 0.0)
    high = min(max(row.high for row in shown), max(errors) + margin, 1.0)
    return axis(100 * low, 100 * high)


def draw_ranking(ranked: Sequence[Ranked], title: str) -> str:
    """The best `SHOWN` as an <svg> element."""
    shown = ranked[:SHOWN]
    scale = range_of(shown)
    left = min(max(text_width(row.label) for row in shown) + 16, WIDTH * 0.42)

    def place(error: float) -> float:
        within = min(max(100 * error, scale.low), scale.high)
        return float(scale.place(within, left, WIDTH - 66.0))

    return templates().get_template("ranking.svg.j2").render(
        shown=shown, title=title, scale=scale, place=place, left=left, width=WIDTH, row=ROW, top=TOP,
        bottom=TOP + ROW * len(shown), height=TOP + ROW * len(shown) + BOTTOM,
    )  # fmt: skip
