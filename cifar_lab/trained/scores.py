"""What predictions are worth: class by class, how they are confused, and whether confidence can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class ClassScore:
    """Of one class: its pictures, those found, and how many were taken for it in all."""

    name: str
    count: int
    correct: int
    predicted: int

    @property
    def accuracy(self) -> float | None:
        """Share of its pictures that were found (recall); None without pictures."""
        return self.correct / self.count if self.count else None

    @property
    def precision(self) -> float | None:
        """Share of the pictures taken for it that are of it; None if none was."""
        return self.correct / self.predicted if self.predicted else None


@dataclass(frozen=True)
class Bin:
    """Predictions with a confidence in (low, high]: how many, their mean confidence, and how many were right."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error over `BINS` bins of equal width (Guo et al. 2017, arXiv 1706.04599, equation 3)."""

    ece: float
    mean_confidence: float
    bins: tuple[Bin, ...]


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """int64 (num_classes, num_classes): how often truth (row) was taken for prediction (column)."""
    pairs = labels * num_classes + predictions
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def class_scores(confusion: Tensor, classes: tuple[str, ...]) -> list[ClassScore]:
    """One for each class, in their order."""
    counts, correct, predicted = confusion.sum(1).tolist(), confusion.diagonal().tolist(), confusion.sum(0).tolist()
    return [ClassScore(*fields) for fields in zip(classes, counts, correct, predicted, strict=True)]


def calibration(confidences: Tensor, right: Tensor) -> Calibration:
    """Of the probability of each prediction (n,) and whether it was right (n,), n > 0."""
    confidences = confidences.double().nan_to_num()
    edges = torch.arange(1, BINS, dtype=torch.float64) / BINS
    place = torch.bucketize(confidences, edges)  # the first bin whose upper edge is not below: (low, high]
    counts = torch.bincount(place, minlength=BINS)
    sure = torch.bincount(place, weights=confidences, minlength=BINS)
    hits = torch.bincount(place, weights=right.double(), minlength=BINS)
    bins = []
    for i, (count, confidence, hit) in enumerate(zip(counts.tolist(), sure.tolist(), hits.tolist(), strict=True)):
        means = (confidence / count, hit / count) if count else (None, None)
        bins.append(Bin(i / BINS, (i + 1) / BINS, count, *means))
    ece = float((sure - hits).abs().sum()) / len(confidences)
    return Calibration(ece, float(confidences.mean()), tuple(bins))
