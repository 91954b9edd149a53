"""What people browse of a completed run: confusions, accuracy by class, the surest mistakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from PIL import Image

from cifar_lab.files.contact_sheet import COLUMNS, ROWS, cut_tile

# W&B's chart of a confusion matrix is a table of 10,000 rows at most.
MAX_CLASSES = 100


def pictures(folder: Path) -> dict[str, Any]:
    """Tables, charts of them, and the sheet of mistakes as it is, from the files of a run."""
    classes = json.loads((folder / "model.json").read_text(encoding="utf-8"))["classes"]
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        ids, labels, guesses, confidences = (file[name] for name in ("ids", "labels", "predictions", "confidences"))
    wrong = np.flatnonzero(labels != guesses)
    worst = wrong[np.argsort(-confidences[wrong], kind="stable")][: COLUMNS * ROWS]  # the order of mistakes.png
    mistakes = wandb.Table(columns=["picture", "id", "is", "predicted", "confidence"])
    with Image.open(folder / "mistakes.png") as sheet:
        for cell, index in enumerate(worst):
            mistakes.add_data(
                wandb.Image(cut_tile(sheet, cell)),
                int(ids[index]),
                classes[labels[index]],
                classes[guesses[index]],
                float(confidences[index]),
            )
    accuracies = wandb.Table(columns=["class", "accuracy", "count"])
    for number, name in enumerate(classes):
        right = (labels == guesses)[labels == number]
        if len(right):
            accuracies.add_data(name, float(right.mean()), len(right))
    logged = {
        "mistakes": mistakes,
        "mistakes_sheet": wandb.Image(str(folder / "mistakes.png")),
        "class_accuracy": wandb.plot.bar(accuracies, "class", "accuracy", title="Test accuracy by class"),
    }
    if len(classes) <= MAX_CLASSES:
        logged["confusion"] = wandb.plot.confusion_matrix(
            y_true=labels.tolist(),
            preds=guesses.tolist(),
            class_names=classes,
            title="Confusion matrix of the test split",
        )
    return logged
