"""What a completed run shows: confusions, accuracy by class, the surest mistakes; read from its directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_lab.files.contact_sheet import COLUMNS, ROWS, cut_tile


@dataclass(frozen=True)
class Mistake:
    """A picture of the test split that was classified wrongly."""

    picture: Image.Image
    id: int
    truth: str
    guess: str
    confidence: float


@dataclass(frozen=True)
class Predicted:
    """labels and predictions (N,) as indices into `classes`; `mistakes` the most confident first, 64 at most."""

    classes: list[str]
    labels: np.ndarray
    predictions: np.ndarray
    mistakes: list[Mistake]

    def class_accuracies(self) -> list[tuple[str, float, int]]:
        """Name, accuracy and number of pictures of each class that has any."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        right = np.bincount(self.labels[self.labels == self.predictions], minlength=len(self.classes))
        return [(name, right[i] / counts[i], int(counts[i])) for i, name in enumerate(self.classes) if counts[i]]


def read_predicted(folder: Path) -> Predicted | None:
    """What predictions.npz, mistakes.png and model.json tell; None when the run has not left them all."""
    try:
        with np.load(folder / "predictions.npz", allow_pickle=False) as file:
            ids, labels, predictions, confidences = (
                file[name] for name in ("ids", "labels", "predictions", "confidences")
            )
        classes = [str(name) for name in json.loads((folder / "model.json").read_text(encoding="utf-8"))["classes"]]
        sheet = Image.open(folder / "mistakes.png")
    except FileNotFoundError:
        return None
    labels, predictions = labels.astype(np.int64), predictions.astype(np.int64)
    wrong = np.flatnonzero(labels != predictions)
    worst = wrong[np.argsort(-confidences[wrong], kind="stable")][: COLUMNS * ROWS]  # the order of mistakes.png
    with sheet:
        mistakes = [
            Mistake(
                cut_tile(sheet, cell),
                int(ids[index]),
                classes[labels[index]],
                classes[predictions[index]],
                float(confidences[index]),
            )
            for cell, index in enumerate(worst)
        ]
    return Predicted(classes, labels, predictions, mistakes)
