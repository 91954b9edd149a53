"""Curves of a run as a picture; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab import atomic
from cifar_lab.report.read import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart with every kind of colour vision (doi 10.1038/nmeth.1618).
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}
FEW_POINTS = 30


def plot_curves(record: RunRecord, path: Path) -> None:
    """Draw training and validation loss, and validation error, over epochs into the PNG `path`, by rename."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.8), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("   ".join(filter(None, (record.label, record.model))), x=0.01, ha="left", fontweight="bold")
        left, right = figure.subplots(1, 2, sharex=True)
        _draw_losses(left, record)
        _draw_error(right, record)
        with atomic.replacing(path) as temporary:
            figure.savefig(temporary)


def _draw_losses(axes: Axes, record: RunRecord) -> None:
    epochs, losses = record.curve("train", "loss")
    mean_epochs, mean_losses = _epoch_means(epochs, losses)
    if len(mean_epochs) >= 3 and len(epochs) >= 2 * len(mean_epochs):
        axes.plot(epochs, losses, color=BLUE, alpha=0.25, linewidth=0.8)
        epochs, losses = mean_epochs, mean_losses
    axes.plot(epochs, losses, color=BLUE, marker=_marker(epochs), label="training")
    epochs, losses = record.curve("val", "loss")
    if epochs:
        axes.plot(epochs, losses, color=VERMILLION, marker=_marker(epochs), label="validation")
    axes.set(title="Loss", xlabel="epoch")
    axes.set_xlim(left=0)
    axes.legend(loc="best")


def _draw_error(axes: Axes, record: RunRecord) -> None:
    axes.set(title="Error (%)", xlabel="epoch")
    epochs, accuracies = record.curve("val", "accuracy")
    if epochs:
        errors = [100 * (1 - accuracy) for accuracy in accuracies]
        axes.plot(
            epochs, errors, color=VERMILLION, marker=_marker(epochs), label=f"validation, last {errors[-1]:.2f} %"
        )
    test_epochs, test_accuracies = record.curve("test", "accuracy")
    if test_epochs:
        error = 100 * (1 - test_accuracies[-1])
        axes.plot(test_epochs[-1:], [error], "D", color=GREEN, markersize=6, label=f"test {error:.2f} %", clip_on=False)
    if epochs or test_epochs:
        axes.set_xlim(left=0)
        axes.legend(loc="best")
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#666666")


def _epoch_means(epochs: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Mean position and mean value of what was logged within each epoch."""
    # A line at epoch 3.0 closes the third epoch: it belongs to (2, 3].
    groups = [list(group) for _, group in groupby(zip(epochs, values, strict=True), lambda pair: -(-pair[0] // 1))]
    means = [tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in groups]
    return [epoch for epoch, _ in means], [value for _, value in means]


def _marker(points: Sequence[float]) -> str | None:
    return "o" if len(points) <= FEW_POINTS else None
