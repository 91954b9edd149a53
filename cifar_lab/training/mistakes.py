"""A contact sheet of the mistakes that a model was surest of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cifar_lab.data.images import ImageSet
from cifar_lab.files.contact_sheet import COLUMNS, ROWS, Tile, draw_sheet
from cifar_lab.training.evaluation import Predictions


def draw_mistakes(path: Path, images: ImageSet, predictions: Predictions) -> None:
    """Write a PNG of up to 64 wrongly classified pictures, the most confident first, each with truth and prediction."""
    wrong = (predictions.predictions != predictions.labels).nonzero().squeeze(1)
    worst = wrong[predictions.confidences[wrong].argsort(descending=True, stable=True)][: COLUMNS * ROWS]
    shown = images.subset(predictions.ids[worst].sort().values)
    picture_of = dict(zip(shown.ids.tolist(), shown.images.cpu(), strict=True))
    tiles = []
    for index in worst.tolist():
        picture = picture_of[int(predictions.ids[index])]
        truth, guess = (images.classes[int(labels[index])] for labels in (predictions.labels, predictions.predictions))
        captions = (
            (f"is {truth}", "black"),
            (f"{guess}"[:11] + f" {predictions.confidences[index]:.0%}", "#b3261e"),
        )
        tiles.append(Tile(Image.fromarray(picture.permute(1, 2, 0).numpy()), captions))
    draw_sheet(path, tiles, empty="no mistakes")
