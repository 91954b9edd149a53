"""The study's ten comparison figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab.report.claims import TITLES, Cast
from cifar_lab.report.curves import Numbers, epoch_means, thinned
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
KINDS = ("loss", "error")


@dataclass(frozen=True)
class Missing:
    """A figure, or a part of one, for which there are no runs."""

    title: str
    roles: list[str]
    whole: bool

    def describe(self) -> str:
        """One sentence."""
        runs = f"no completed run of {', '.join(self.roles)}"
        return f"{self.title}: {runs}" if self.whole else f"{self.title}: drawn without {', '.join(self.roles)}, {runs}"


def study_figures(experiments: Sequence[Experiment]) -> tuple[list[Figure], list[Missing]]:
    """The comparison figures that the runs allow, and what is missing."""
    cast, figures, missing = Cast(experiments), [], []
    for name, (title, roles) in COMPARISONS.items():
        chosen = _chosen(cast, roles)
        absent = [role for role in roles if role not in chosen]
        if absent:
            missing.append(Missing(title, absent, whole=not chosen))
        if chosen:
            figures += comparison(name, title, [(TITLES[role], experiment) for role, experiment in chosen.items()])
    return figures, missing


def _chosen(cast: Cast, roles: Sequence[str]) -> dict[str, Experiment]:
    """The experiments that the claims compare, else the first candidates."""
    names = PAIRS.get(tuple(roles)) or (roles[0], roles[1])
    chosen = dict(zip(names, cast.pair(*names) or (), strict=False))
    for role in roles:
        candidates = cast.named(role)
        if candidates and role not in chosen:
            chosen[role] = candidates[0]
    return {role: chosen[role] for role in roles if role in chosen}


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
    loss = Figure(f"{name}-loss", f"{title}: loss", [line for line in losses if len(line.x)], y_title="loss")
    error = Figure(
        f"{name}-error", f"{title}: validation error", [line for line in errors if len(line.x)], y_title="error (%)"
    )
    return [_captioned(figure, seeds) for figure in (loss, error) if figure.lines]


def training_loss(run: RunRecord) -> tuple[Numbers, Numbers]:
    """Mean training loss of each epoch."""
    epochs, losses = run.metrics.curve("train", "loss")
    return epoch_means(epochs, losses) if len(epochs) else (epochs, losses)


def validation_error(run: RunRecord) -> tuple[Numbers, Numbers]:
    """Validation error in percent over epochs."""
    epochs, accuracies = run.metrics.curve("val", "accuracy")
    return epochs, 100 * (1 - accuracies)


def _line(label: str, curves: Sequence[tuple[Numbers, Numbers]], look: int, *, dashed: bool = False) -> Line:
    x, mean, low, high = band([thinned(x, y, POINTS) for x, y in curves])
    return Line(label, x, mean, look, dashed, low=low, high=high)


def _captioned(figure: Figure, seeds: Sequence[int]) -> Figure:
    """Say what band and axis are."""
    axis = figure.y_axis()
    several = f"Mean of {_listed(seeds)} seeds, band from the lowest to the highest."
    text = several if max(seeds) > 1 else "One seed."
    if axis.low > 0:
        text += f" The axis starts at {axis.text(axis.low)}."
    if figure.cut:
        text += " The first epochs are above it."
    return Figure(figure.name, figure.title, figure.lines, figure.x_title, figure.y_title, text)


def _listed(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(set(seeds)) == 1 else f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
