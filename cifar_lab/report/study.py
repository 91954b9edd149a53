"""Figures that compare experiments: the ten of the study, and those of any others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cifar_lab.report.claims import TITLES, Cast
from cifar_lab.report.curves import Curve, epoch_means, thinned
from cifar_lab.report.figure import Figure, Line, band
from cifar_lab.report.groups import Experiment
from cifar_lab.report.record import RunRecord

POINTS = 60
MOST = 6  # experiments that can be told apart in one figure
COMPARISONS: dict[str, tuple[str, ...]] = {
    "plain18-plain34": ("plain18", "plain34"),
    "resnet18-resnet34": ("resnet18", "resnet34"),
    "resnet18_ms": ("resnet18_ms",),
    "vit_tiny": ("vit_tiny",),
    "vits": ("vit_tiny", "vit_tiny_scratch", "vit_custom"),
}


def study_figures(
    experiments: Mapping[Experiment, str], compared: Collection[Experiment]
) -> tuple[list[Figure], list[str], set[Experiment]]:
    """The comparison figures that runs allow, a sentence on each that lacks some, and the experiments that play parts.

    `experiments` has the labels of a table; those `compared` by claims are drawn first.
    """
    cast, figures, missing, playing = Cast(list(experiments)), [], [], set()
    for name, roles in COMPARISONS.items():
        sides: list[tuple[int, str, Experiment]] = []
        for role in roles:
            first = sorted(cast.named(role), key=lambda experiment: experiment not in compared)
            sides += [(turn, TITLES[role] + experiments[e].removeprefix(e.name), e) for turn, e in enumerate(first)]
        absent = [role for role in roles if not cast.named(role)]
        if absent:
            without = f"drawn without {', '.join(absent)}, " if sides else ""
            missing.append(f"{_title(roles)}: {without}no completed run of {', '.join(absent)}")
        # One experiment of each part, then the second of each: all parts are seen where not all experiments are drawn.
        drawn = [(label, experiment) for _, label, experiment in sorted(sides, key=lambda side: side[0])]
        figures += comparison(name, _title([role for role in roles if role not in absent]), drawn) if sides else []
        playing |= {experiment for _, experiment in drawn}
    return figures, missing, playing


def _title(roles: Sequence[str]) -> str:
    text = "the three ViTs" if len(roles) == 3 else " and ".join(TITLES[role] for role in roles)
    return text[:1].upper() + text[1:]


def comparison(name: str, title: str, sides: Sequence[tuple[str, Experiment]]) -> list[Figure]:
    """A figure of training and validation loss, and one of validation error, of the first `MOST` sides."""
    losses, errors = [], []
    for look, (label, experiment) in enumerate(sides[:MOST]):
        runs = experiment.runs
        side = label if len(sides) > 1 else ""
        losses.append(_line(side, [training_loss(run) for run in runs], look, kind="training", dashed=True))
        losses.append(_line(side, [run.metrics.curve("val", "loss") for run in runs], look, kind="validation"))
        last = "" if experiment.val_error is None else f", last {100 * experiment.val_error:.2f} %"
        errors.append(_line(f"{label}{last}", [validation_error(run) for run in runs], look))
    if len(sides) > MOST:
        title = f"{title}, {MOST} of {len(sides)}"
    dashed = " (dashed: training)" if len(sides) > 1 else ""
    figures = (
        Figure(f"{name}-loss", f"{title}: loss", losses, y_title=f"loss{dashed}"),
        Figure(f"{name}-error", f"{title}: validation error", errors, y_title="error (%)"),
    )
    without_values = [[line.name for line in lines if not len(line.x)] for lines in (losses, errors)]
    return [
        replace(figure, caption=_caption(figure, absent, len(sides) - MOST))
        for figure, absent in zip(figures, without_values, strict=True)
        if figure.lines
    ]


def training_loss(run: RunRecord) -> Curve:
    """Mean training loss of each epoch."""
    epochs, losses = run.metrics.curve("train", "loss")
    return epoch_means(epochs, losses) if len(epochs) else (epochs, losses)


def validation_error(run: RunRecord) -> Curve:
    """Validation error in percent over epochs."""
    epochs, accuracies = run.metrics.curve("val", "accuracy")
    return epochs, 100 * (1 - accuracies)


def _line(label: str, curves: Sequence[Curve], look: int, *, kind: str = "", dashed: bool = False) -> Line:
    x, mean, low, high = band(curves)
    # Thinned afterwards: all that is drawn is the mean, lowest and highest of seeds at an epoch that they have.
    kept = np.isin(x, np.concatenate([x[:0], *(thinned(x, of, POINTS)[0] for of in (mean, low, high) if len(of))]))
    low, high = (edge[kept] if len(edge) else edge for edge in (low, high))
    seeds = sum(len(x) > 0 for x, _ in curves)
    return Line(label, x[kept], mean[kept], look, dashed, kind=kind, low=low, high=high, seeds=seeds)


def _caption(figure: Figure, without_values: Sequence[str], left_out: int) -> str:
    """What the lines are, where the axis starts, and what is not drawn."""
    seeds = list({line.look: line.seeds for line in figure.lines}.values())
    several = f"Mean of {_listed(seeds)} seeds where all have a value, band from the lowest to the highest."
    told = [several if max(seeds) > 1 else "One seed."]
    axis = figure.y_axis()
    told += [f"The axis starts at {axis.text(axis.low)}."] if axis.low > 0 else []
    told += [f"Not drawn for want of values: {', '.join(without_values)}."] if without_values else []
    told += [f"{left_out} more experiments are not drawn; each run has its curves under Runs."] if left_out > 0 else []
    return " ".join(told)


def _listed(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(set(seeds)) == 1 else f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
