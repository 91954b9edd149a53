"""The study's ten comparison figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cifar_lab.report.claims import TITLES, Cast
from cifar_lab.report.curves import Curve, epoch_means, thinned
from cifar_lab.report.figure import Figure, Line, band
from cifar_lab.report.groups import Experiment
from cifar_lab.report.record import RunRecord

POINTS = 150
COMPARISONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain18-plain34": ("Plain18 and Plain34", ("plain18", "plain34")),
    "resnet18-resnet34": ("ResNet18 and ResNet34", ("resnet18", "resnet34")),
    "resnet18_ms": ("ResNet18-MS", ("resnet18_ms",)),
    "vit_tiny": ("Pretrained ViT", ("vit_tiny",)),
    "vits": ("The three ViTs", ("vit_tiny", "vit_tiny_scratch", "vit_custom")),
}
# Figures of one side of a claim.
PAIRS: dict[tuple[str, ...], tuple[str, str]] = {
    ("resnet18_ms",): ("resnet18", "resnet18_ms"),
    ("vit_tiny",): ("vit_tiny_scratch", "vit_tiny"),
}


def study_figures(experiments: Sequence[Experiment]) -> tuple[list[Figure], list[str]]:
    """The comparison figures that the runs allow, and a sentence on each that lacks runs, wholly or in part."""
    cast, figures, missing = Cast(experiments), [], []
    for name, (title, roles) in COMPARISONS.items():
        chosen = _chosen(cast, roles)
        absent = ", ".join(role for role in roles if role not in chosen)
        if absent:
            missing.append(f"{title}: {f'drawn without {absent}, ' if chosen else ''}no completed run of {absent}")
        if chosen:
            figures += comparison(name, title, [(TITLES[role], experiment) for role, experiment in chosen.items()])
    return figures, missing


def _chosen(cast: Cast, roles: tuple[str, ...]) -> dict[str, Experiment]:
    """The experiments that the claims compare, else the first candidates."""
    names = PAIRS.get(roles, roles)[:2]
    chosen = dict(zip(names, cast.pair(*names) or (), strict=False))
    first = {role: candidates[0] for role in roles if (candidates := cast.named(role))}
    return {role: chosen.get(role, experiment) for role, experiment in first.items()}


def comparison(name: str, title: str, sides: Sequence[tuple[str, Experiment]]) -> list[Figure]:
    """A figure of training and validation loss, and one of validation error."""
    losses, errors = [], []
    for look, (label, experiment) in enumerate(sides):
        runs = experiment.runs
        prefix = f"{label}, " if len(sides) > 1 else ""
        losses.append(_line(f"{prefix}training", [training_loss(run) for run in runs], look, dashed=True))
        losses.append(_line(f"{prefix}validation", [run.metrics.curve("val", "loss") for run in runs], look))
        last = "" if experiment.val_error is None else f", last {100 * experiment.val_error:.2f} %"
        errors.append(_line(f"{label}{last}", [validation_error(run) for run in runs], look))
    seeds = [len(experiment.runs) for _, experiment in sides]
    figures = (
        Figure(f"{name}-loss", f"{title}: loss", losses, y_title="loss"),
        Figure(f"{name}-error", f"{title}: validation error", errors, y_title="error (%)"),
    )
    return [replace(figure, caption=_caption(figure, seeds)) for figure in figures if figure.lines]


def training_loss(run: RunRecord) -> Curve:
    """Mean training loss of each epoch."""
    epochs, losses = run.metrics.curve("train", "loss")
    return epoch_means(epochs, losses) if len(epochs) else (epochs, losses)


def validation_error(run: RunRecord) -> Curve:
    """Validation error in percent over epochs."""
    epochs, accuracies = run.metrics.curve("val", "accuracy")
    return epochs, 100 * (1 - accuracies)


def _line(label: str, curves: Sequence[Curve], look: int, *, dashed: bool = False) -> Line:
    x, mean, low, high = band([thinned(x, y, POINTS) for x, y in curves])
    return Line(label, x, mean, look, dashed, low=low, high=high)


def _caption(figure: Figure, seeds: Sequence[int]) -> str:
    """What band and axis are."""
    axis = figure.y_axis()
    several = f"Mean of {_listed(seeds)} seeds, band from the lowest to the highest."
    text = several if max(seeds) > 1 else "One seed."
    if axis.low > 0:
        text += f" The axis starts at {axis.text(axis.low)}."
    return f"{text} The first epochs are above it." if figure.cut else text


def _listed(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(set(seeds)) == 1 else f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
