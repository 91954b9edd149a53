"""A figure of curves as data: what is drawn, and on which axes; how is the business of svg.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cifar_lab.report.curves import EMPTY, Curve, Numbers

# Above this share of its end value's range, the start of a curve is cut off rather than all else squeezed.
EARLY = 0.12
FEWEST_TO_CUT = 8
MOST_TICKS = 8


@dataclass(frozen=True, eq=False)
class Line:
    """One curve, the mean of `seeds`; `look` chooses colour and marker, a band goes from `low` to `high` if given.

    Lines of one look and label (training and validation, the `kind`) share an entry of the legend.
    """

    label: str
    x: Numbers
    y: Numbers
    look: int = 0
    dashed: bool = False
    faint: bool = False
    low: Numbers = field(default_factory=lambda: EMPTY)
    high: Numbers = field(default_factory=lambda: EMPTY)
    kind: str = ""
    seeds: int = 1

    @property
    def name(self) -> str:
        """Label and kind."""
        return ", ".join(part for part in (self.label, self.kind) if part)

    @property
    def top(self) -> Numbers:
        """The upper edge of all that is drawn of it."""
        return self.high if len(self.high) else self.y


@dataclass(frozen=True)
class Axis:
    """Where an axis starts and ends, and its ticks."""

    low: float
    high: float
    ticks: list[float]

    def place(self, value: Any, start: float, end: float) -> Any:
        """Where a number, or an array of them, lies on an axis that is drawn from `start` to `end`."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)

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

    def __post_init__(self) -> None:
        self.lines = [line for line in self.lines if len(line.x)]

    def x_axis(self) -> Axis:
        """From the start of training to its end."""
        return axis(0.0, max([1e-9, *(float(line.x[-1]) for line in self.lines)]), tight=True)

    def y_axis(self) -> Axis:
        """Where reading is easiest: as much room as the curves need once the first epochs are over."""
        shown = [values for line in self.lines for values in (line.y, line.low, line.high) if len(values)]
        low = min(float(values.min()) for values in shown)
        high = max(float(values.max()) for values in shown)
        if self.from_zero:
            return axis(0.0, high)
        calm = max(map(_after_start, self.lines))
        long = max(len(line.x) for line in self.lines) >= FEWEST_TO_CUT
        if long and high - low > 1.6 * (calm - low) > 0:
            high = calm + 0.15 * (calm - low)
        return axis(0.0 if 0 <= low < 0.2 * high else low, high)

    @property
    def above(self) -> str:
        """What the axis leaves out above, empty where it shows all."""
        limit = self.y_axis().high
        out = [
            (float(line.x[line.top > limit][-1]), float(line.top.max()))
            for line in self.lines
            if line.top.max() > limit
        ]
        if not out:
            return ""
        return f"above the axis until epoch {max(x for x, _ in out):.3g}: up to {max(y for _, y in out):.3g}"


def _after_start(line: Line) -> float:
    """The highest value once `EARLY` of the training is over."""
    after = line.top[line.x >= line.x[0] + EARLY * (line.x[-1] - line.x[0])]
    return float(after.max())


# Of what numbers are, and of what can be drawn.
ROUNDING, SMALLEST, LARGEST = 1e-9, 1e-300, 1e300


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


def band(curves: Sequence[Curve]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """x, mean, lowest and highest over seeds, where all of them have a value; no band of a single one."""
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return EMPTY, EMPTY, EMPTY, EMPTY
    longest = max((x for x, _ in curves), key=len)
    start, end = max(float(x[0]) for x, _ in curves), min(float(x[-1]) for x, _ in curves)
    grid = longest[(longest >= start - 1e-9) & (longest <= end + 1e-9)]
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    if len(values) == 1:
        return grid, values[0], EMPTY, EMPTY
    return grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0)
