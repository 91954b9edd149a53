"""Whether nets are right as often as they are sure: accuracy against confidence, in bins."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_lab.cli.printable import percent
from cifar_lab.report.groups import Experiment

BINS = 15


@dataclass(frozen=True, eq=False)
class Calibration:
    """Number of answers in each of `BINS` equal bins of confidence (0, 1], their mean confidence and their accuracy.

    Answers of all `seeds` of an experiment are pooled; an empty bin has confidence and accuracy 0.
    """

    name: str
    label: str
    seeds: int
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error (ECE): the mean of |accuracy - confidence| over bins, weighted by their counts.

        Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599), equations 1 to 3.
        """
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.counts))

    @property
    def title(self) -> str:
        """What a drawing is headed with; `told` says the rest."""
        return f"{self.label}: ECE {percent(self.error)}"

    @property
    def told(self) -> str:
        """Whose answers were counted."""
        return f"{self.counts.sum():,} answers of {self.seeds} seed{'s, pooled' if self.seeds > 1 else ''}"

    def bin(self, place: int) -> str:
        """One bin in words."""
        return (
            f"{self.label}, confidence {100 * place / BINS:.1f} to {100 * (place + 1) / BINS:.1f} %: "
            f"{self.counts[place]:,} answers, accuracy {percent(self.accuracy[place])}, "
            f"mean confidence {percent(self.confidence[place])}"
        )


def binned(confidences: NDArray[Any], right: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of each bin the number of answers, the sum of their confidences, and how many are right; both arguments are (n,).

    A confidence on an edge belongs to the lower bin, one that is not a number to the lowest.
    """
    confidences = np.nan_to_num(confidences.astype(np.float64))
    places = np.digitize(confidences, np.arange(1, BINS) / BINS, right=True)
    counts = np.bincount(places, minlength=BINS)
    return counts, np.bincount(places, confidences, BINS), np.bincount(places, right, BINS)


def calibration(name: str, label: str, experiment: Experiment) -> Calibration | None:
    """That of all its seeds together; None where no seed has confidences."""
    known = [
        (run.predictions.confidences, ~run.wrong)
        for run in experiment.runs
        if run.predictions is not None and run.wrong is not None and run.predictions.confidences is not None
    ]
    if not known:
        return None
    confidences, right = (np.concatenate(columns) for columns in zip(*known, strict=True))
    counts, *sums = binned(confidences, right)
    return Calibration(name, label, len(known), counts, *(one / np.maximum(counts, 1) for one in sums))
