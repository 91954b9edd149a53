"""Figures that compare experiments: the ten of the study, and those of any others."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from cifar_lab.report.claims import TITLES, Cast
from cifar_lab.report.curves import EMPTY, Curve, epoch_means, thinned
from cifar_lab.report.figure import Figure, Line, mean_curve
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
) -> tuple[list[Figure], set[Experiment]]:
    """The comparison figures of the study, none where no two of its parts can be compared, and who plays in them.

    `experiments` has the labels of a table; those `compared` by claims are drawn first.
    """
    cast = Cast(list(experiments))
    figures: list[Figure] = []
    playing: set[Experiment] = set()
    present = {name: [role for role in roles if cast.named(role)] for name, roles in COMPARISONS.items()}
    # A pair with one side says nothing; its experiment is drawn with all others.
    present = {name: roles for name, roles in present.items() if len(roles) >= min(2, len(COMPARISONS[name]))}
    if not any(len(roles) > 1 for roles in present.values()):
        return [], set()
    for name, roles in present.items():
        sides: list[tuple[int, str, Experiment]] = []
        for role in roles:
            first = sorted(cast.named(role), key=lambda experiment: experiment not in compared)
            sides += [(turn, TITLES[role] + experiments[e].removeprefix(e.name), e) for turn, e in enumerate(first)]
        # One experiment of each part, then the second of each: what is to be compared stands in one figure.
        drawn = [(label, experiment) for _, label, experiment in sorted(sides, key=lambda side: side[0])]
        figures += comparison(name, _title(roles), drawn)
        playing |= {experiment for _, experiment in drawn}
    return figures, playing


def _title(roles: Sequence[str]) -> str:
    text = "the three ViTs" if len(roles) == 3 else " and ".join(TITLES[role] for role in roles)
    return text[:1].upper() + text[1:]


def comparison(name: str, title: str, sides: Sequence[tuple[str, Experiment]]) -> list[Figure]:
    """A figure of training and validation loss, and one of validation error; two more for every `MOST` sides."""
    found = []
    for start in range(0, len(sides), MOST):
        part = sides[start : start + MOST]
        number = f"-{start // MOST + 1}" if start else ""
        of = f", {start + 1} to {start + len(part)} of {len(sides)}" if len(sides) > MOST else ""
        found += _compared(f"{name}{number}", f"{title}{of}", part)
    return found


def _compared(name: str, title: str, sides: Sequence[tuple[str, Experiment]]) -> list[Figure]:
    losses: list[list[Line]] = []
    errors: list[list[Line]] = []
    for look, (label, experiment) in enumerate(sides):
        side = label if len(sides) > 1 else ""
        losses.append(_lines(Line(side, EMPTY, EMPTY, look, dashed=True, kind="training"), experiment, training_loss))
        losses.append(_lines(Line(side, EMPTY, EMPTY, look, kind="validation"), experiment, validation_loss))
        last = "" if experiment.val_error is None else f", last {100 * experiment.val_error:.2f} %"
        errors.append(_lines(Line(f"{label}{last}", EMPTY, EMPTY, look), experiment, validation_error))
    dashed = " (dashed: training)" if len(sides) > 1 else ""
    figures = (
        _figure(f"{name}-loss", f"{title}: loss", f"loss{dashed}", losses),
        _figure(f"{name}-error", f"{title}: validation error", "error (%)", errors),
    )
    return [figure for figure in figures if figure.lines]


def training_loss(run: RunRecord) -> Curve:
    """Mean training loss of each epoch."""
    epochs, losses = run.metrics.curve("train", "loss")
    return epoch_means(epochs, losses) if len(epochs) else (epochs, losses)


def validation_error(run: RunRecord) -> Curve:
    """Validation error in percent over epochs."""
    epochs, accuracies = run.metrics.curve("val", "accuracy")
    return epochs, 100 * (1 - accuracies)


def validation_loss(run: RunRecord) -> Curve:
    """Validation loss over epochs."""
    return run.metrics.curve("val", "loss")


def _lines(like: Line, experiment: Experiment, of: Callable[[RunRecord], Curve]) -> list[Line]:
    """A line of each seed, thin where there are several, and then their mean on top."""
    curves = [(run, of(run)) for run in experiment.runs]
    known = [(run, curve) for run, curve in curves if len(curve[0])]
    lines = [(run.label, curve) for run, curve in known]
    if len(known) != 1:
        lines.append((f"mean of {len(known)} seeds", mean_curve([curve for _, curve in known])))
    last = len(lines) - 1
    return [
        replace(like, x=x, y=y, faint=place < last, seeds=len(known), source=source)
        for place, (source, (x, y)) in enumerate((source, thinned(*curve, POINTS)) for source, curve in lines)
    ]


def _figure(name: str, title: str, y_title: str, groups: Sequence[Sequence[Line]]) -> Figure:
    """With a caption: what the lines are, how the axis goes, and what is not drawn."""
    figure = Figure(name, title, [line for group in groups for line in group], y_title=y_title)
    if not figure.lines:
        return figure
    seeds = list({line.look: line.seeds for line in figure.lines}.values())
    several = f"Thin lines are seeds, thick ones the mean of {_listed(seeds)}, where all of them have a value."
    told = [several if max(seeds) > 1 else "One seed."]
    axis = figure.y_axis()
    if axis.log:
        told.append("The vertical axis is logarithmic.")
    elif axis.low > 0:
        told.append(f"The axis starts at {axis.text(axis.low)}.")
    without = [group[0].name for group in groups if not any(len(line.x) for line in group)]
    told += [f"Not drawn, since no values were logged: {', '.join(without)}."] if without else []
    return replace(figure, caption=" ".join(told))


def _listed(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(set(seeds)) == 1 else f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
