"""A figure of curves as data: what is drawn, and on which axes; how is the business of svg.py."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_lab.report.curves import EMPTY, Curve, Numbers

MOST_TICKS = 8


@dataclass(frozen=True, eq=False)
class Line:
    """One curve of a run or the mean of `seeds`, which the `source` tells; `look` chooses colour and marker.

    Lines of one look and label (seeds, training and validation, the `kind`) share an entry of the legend.
    """

    label: str
    x: Numbers
    y: Numbers
    look: int = 0
    dashed: bool = False
    faint: bool = False
    kind: str = ""
    seeds: int = 1
    source: str = ""

    @property
    def name(self) -> str:
        """Label and kind."""
        return ", ".join(part for part in (self.label, self.kind) if part)


@dataclass(frozen=True)
class Axis:
    """Where an axis starts and ends, and its ticks."""

    low: float
    high: float
    ticks: list[float]
    log: bool = False

    def place(self, value: Any, start: float, end: float) -> Any:
        """Where a number, or an array of them, lies on an axis that is drawn from `start` to `end`."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), np.log(value)
        return start + (value - low) / (high - low) * (end - start)

    def text(self, value: float) -> str:
        """A tick's label."""
        return f"{value:.10g}"


@dataclass(eq=False)
class Figure:
    """A title, lines (those without a point are left out), axis titles, and a caption that says what lines cannot."""

    name: str
    title: str
    lines: list[Line]
    x_title: str = "epoch"
    y_title: str = ""
    caption: str = ""
    from_zero: bool = False
    source: str = ""  # of its lines, where these do not tell

    def __post_init__(self) -> None:
        self.lines = [line for line in self.lines if len(line.x)]

    def told(self, line: Line, point: int) -> str:
        """A value with its run and epoch."""
        name = line.kind if line.faint else line.name or self.title
        who = ", ".join(part for part in (name, line.source or self.source) if part)
        return f"{who}, {self.x_title} {line.x[point]:.4g}: {line.y[point]:.4g}"

    def x_axis(self) -> Axis:
        """From the start of training to its end."""
        return axis(0.0, max([1e-9, *(float(line.x[-1]) for line in self.lines)]), tight=True)

    def y_axis(self) -> Axis:
        """From the lowest value to the highest; logarithmic where the first epochs would squeeze the others."""
        low = min(float(line.y.min()) for line in self.lines)
        high = max(float(line.y.max()) for line in self.lines)
        if self.from_zero:
            return axis(0.0, high)
        return log_axis(low, high) if SMALLEST < low < high / SQUEEZED else axis(low, high)


# Of what numbers are, and of what can be drawn.
ROUNDING, SMALLEST, LARGEST = 1e-9, 1e-300, 1e300
# So many times the lowest value is the highest, where half of the values lie in a corner of a linear axis.
SQUEEZED = 5.0


def axis(low: float, high: float, *, tight: bool = False) -> Axis:
    """The finest round ticks that are at most `MOST_TICKS`; the axis itself is rounded to them unless `tight`."""
    low, high = (min(max(value, -LARGEST), LARGEST) for value in (low, high))
    if not high - low > max(ROUNDING * max(abs(low), abs(high)), SMALLEST):  # equal, but for the rounding of a mean
        margin = abs(high) * 0.1 if abs(high) > 10 * SMALLEST else 1.0
        low, high = (low - margin if low else 0.0), high + margin
    power = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    for step in (m * power for m in (1, 2, 2.5, 5, 10, 20, 25, 50)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < MOST_TICKS:
            break
    digits = 6 - math.floor(math.log10(step))
    ticks = [round(i * step, digits) for i in range(first, last + 1)]
    if tight:
        return Axis(low, high, [tick for tick in ticks if low - 1e-9 <= tick <= high + 1e-9])
    return Axis(ticks[0], ticks[-1], ticks)


def log_axis(low: float, high: float) -> Axis:
    """Of positive numbers of which `high` is `SQUEEZED` times `low` or more: ticks at 1, 2 and 5, of many at powers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(min(high, LARGEST)))
    stride = 1 + (last - first) // MOST_TICKS
    steps = (1, 2, 5) if high < 100 * low else (1,)
    ticks = [float(f"{digit}e{power}") for power in range(first, last + 1, stride) for digit in steps]
    low, high = low / 1.05, min(high, LARGEST) * 1.05
    return Axis(low, high, [tick for tick in ticks if low <= tick <= high], log=True)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds, at the epochs where all of them have a value."""
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return EMPTY, EMPTY
    longest = max((x for x, _ in curves), key=len)
    start, end = max(float(x[0]) for x, _ in curves), min(float(x[-1]) for x, _ in curves)
    grid = longest[(longest >= start - 1e-9) & (longest <= end + 1e-9)]
    return grid, np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)
