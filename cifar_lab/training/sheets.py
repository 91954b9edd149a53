"""Contact sheets: what the model is fed first, and the mistakes that it was surest of in the end."""

from __future__ import annotations

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
    """Write a PNG of up to 64 wrongly classified pictures, the most confident first, each with truth and prediction."""
    wrong = (predictions.predictions != predictions.labels).nonzero().squeeze(1)
    worst = wrong[predictions.confidences[wrong].argsort(descending=True, stable=True)][: COLUMNS * ROWS]
    shown = images.subset(predictions.ids[worst].sort().values)
    picture_of = dict(zip(shown.ids.tolist(), shown.images.cpu(), strict=True))
    tiles = []
    for index in worst.tolist():
        picture = picture_of[int(predictions.ids[index])]
        truth, guess = (images.classes[int(labels[index])] for labels in (predictions.labels, predictions.predictions))
        captions = ((f"is {truth}", "black"), (f"{guess[:11]} {predictions.confidences[index]:.0%}", "#b3261e"))
        tiles.append(Tile(Image.fromarray(picture.permute(1, 2, 0).numpy()), captions))
    draw_sheet(path, tiles, empty="no mistakes")
