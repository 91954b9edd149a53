"""The ranked errors as a picture: every seed a dot, the mean a diamond, its 95 % interval a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cifar_lab.report.figure import Axis, axis
from cifar_lab.report.groups import Experiment
from cifar_lab.report.stats import difference, pooled_spread
from cifar_lab.report.svg import shortened, text_width

WIDTH, ROW, TOP, BOTTOM = 540, 26, 40, 46
SHOWN = 40


@dataclass(frozen=True)
class Row:
    """One experiment, all in percent."""

    label: str
    seeds: tuple[float, ...]
    mean: float
    low: float
    high: float


def rows(experiments: Sequence[Experiment], labels: Sequence[str]) -> list[Row]:
    """One row an experiment, the best `SHOWN` of them."""
    pooled = pooled_spread([experiment.sample for experiment in experiments])
    found = []
    for experiment, label in list(zip(experiments, labels, strict=True))[:SHOWN]:
        sample = experiment.sample
        interval = difference([(1, sample)], pooled)
        # An error lies between 0 and 1, whatever two seeds make of the interval.
        low, high = max(interval.low, 0.0), min(interval.high, 1.0)
        seeds = tuple(100 * error for error in sample.errors)
        found.append(Row(label, seeds, 100 * sample.mean, 100 * low, 100 * high))
    return found


def range_of(shown: Sequence[Row]) -> Axis:
    """An axis that holds every mean and seed, and intervals as far as they do not dwarf them."""
    low, high = min(min(row.seeds) for row in shown), max(max(row.seeds) for row in shown)
    margin = max(0.5 * (high - low), 0.02 * high, 0.1)
    low = max(min(row.low for row in shown), low - margin, 0.0)
    high = min(max(row.high for row in shown), high + margin, 100.0)
    return axis(low, high)


def draw_ranking(shown: Sequence[Row], title: str) -> str:
    """The <svg> element."""
    scale = range_of(shown)
    left = min(max(text_width(row.label) for row in shown) + 16, WIDTH * 0.42)
    right, height = WIDTH - 66.0, TOP + ROW * len(shown) + BOTTOM
    bottom = TOP + ROW * len(shown)

    def at(value: float) -> float:
        return left + (min(max(value, scale.low), scale.high) - scale.low) / (scale.high - scale.low) * (right - left)

    parts = [f'<text class="title" x="4" y="18">{escape(title)}</text>']
    for tick in scale.ticks:
        parts.append(f'<path class="grid" d="M{at(tick):.1f} {TOP - 6}V{bottom}"/>')
        parts.append(f'<text x="{at(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{scale.text(tick)}</text>')
    parts.append(f'<text x="{(left + right) / 2:.1f}" y="{bottom + 37}" text-anchor="middle">test error (%)</text>')
    for index, row in enumerate(shown):
        y = TOP + ROW * (index + 0.5)
        told = f"{row.label}: {row.mean:.2f} %, interval {row.low:.2f} to {row.high:.2f}, {len(row.seeds)} seeds"
        dots = "".join(f'<circle class="seed" cx="{at(seed):.1f}" cy="{y:.1f}" r="3.5"/>' for seed in row.seeds)
        parts.append(
            f"<g><title>{escape(told)}</title>"
            f'<text class="name" x="4" y="{y + 4.5:.1f}">{escape(shortened(row.label, left - 12))}</text>'
            f'<path class="whisker" d="M{at(row.low):.1f} {y:.1f}H{at(row.high):.1f}"/>{dots}'
            f'<path class="mean" d="M{at(row.mean):.1f} {y:.1f}m0 -6l6 6l-6 6l-6 -6z"/>'
            f'<text class="name" x="{WIDTH - 4}" y="{y + 4.5:.1f}" text-anchor="end">{row.mean:.2f} %</text></g>'
        )
    spoken = "; ".join(f"{row.label} {row.mean:.2f} %" for row in shown)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}: {escape(spoken)}">'
        f"{''.join(parts)}</svg>"
    )
