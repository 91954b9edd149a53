"""Contact sheets: what the model is fed first, and the mistakes that it was surest of in the end."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from cifar_lab.data.images import ImageSet
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import Stream
from cifar_lab.files import atomic
from cifar_lab.files.contact_sheet import COLUMNS, ROWS, Tile, draw_sheet
from cifar_lab.training.evaluation import Predictions


def draw_augmented(path: Path, stream: Stream, preparation: Preparation, classes: Sequence[str]) -> None:
    """Write a PNG of the first pictures of step 0 with their own labels, unless it is there already."""
    if path.exists():
        return
    tiles: list[Tile] = []
    shift, scale = (torch.tensor(values).view(-1, 1, 1) for values in (preparation.mean, preparation.std))
    for m in range(stream.global_batch // stream.micro_batch_size):
        batch = stream.micro_batch(0, m)
        for picture, label in zip(batch.images[: COLUMNS * ROWS - len(tiles)].cpu(), batch.labels, strict=False):
            pixels = ((picture.float() * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)
            captions = ((classes[int(label)], "black"),)
            tiles.append(Tile(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()), captions))
        if len(tiles) == COLUMNS * ROWS:
            break
    with atomic.replacing(path) as temporary:
        draw_sheet(temporary, tiles)


def draw_mistakes(path: Path, images: ImageSet, predictions: Predictions) -> None:
    """Write a PNG of up to 64 mistakes, the most confident first, each with id and truth, confidence and prediction."""
    worst = _mistakes(images, predictions)[: COLUMNS * ROWS]
    shown = images.subset(torch.tensor(sorted(sample for sample, *_ in worst), dtype=torch.int64))
    picture_of = dict(zip(shown.ids.tolist(), shown.images.cpu(), strict=True))
    tiles = []
    for sample, truth, guess, confidence in worst:
        captions = ((f"{sample} is {truth}", "black"), (f"{confidence:.0%} {guess}", "#b3261e"))
        tiles.append(Tile(Image.fromarray(picture_of[sample].permute(1, 2, 0).numpy()), captions))
    draw_sheet(path, tiles, empty="no mistakes")


def write_mistakes(path: Path, images: ImageSet, predictions: Predictions) -> None:
    """Write a CSV of all mistakes, the most confident first; `file` is empty where pictures are not files."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("id", "class", "predicted", "confidence", "file"))
        for sample, *found in _mistakes(images, predictions):
            lines.writerow((sample, *found, images.names[sample] if images.names else ""))


def _mistakes(images: ImageSet, predictions: Predictions) -> list[tuple[int, str, str, float]]:
    """Id, class, predicted class and confidence of each, the most confident first."""
    wrong = (predictions.predictions != predictions.labels).nonzero().squeeze(1)
    order = wrong[predictions.confidences[wrong].argsort(descending=True, stable=True)]
    ids, confidences = predictions.ids[order].tolist(), predictions.confidences[order].tolist()
    found = ([images.classes[i] for i in of[order].tolist()] for of in (predictions.labels, predictions.predictions))
    return list(zip(ids, *found, confidences, strict=True))
