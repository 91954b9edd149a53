"""A contact sheet of the mistakes that a model was surest of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cifar_lab.data.images import ImageSet
from cifar_lab.evaluation import Predictions

COLUMNS, ROWS = 8, 8
CELL, CAPTION, GAP = 96, 30, 8


def draw_mistakes(path: Path, images: ImageSet, predictions: Predictions) -> None:
    """Write a PNG of up to 64 wrongly classified pictures, the most confident first, each with truth and prediction."""
    wrong = (predictions.predictions != predictions.labels).nonzero().squeeze(1)
    worst = wrong[predictions.confidences[wrong].argsort(descending=True, stable=True)][: COLUMNS * ROWS]
    rows = max(1, -(-len(worst) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, rows * (CELL + CAPTION + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    position_of = {int(sample): position for position, sample in enumerate(images.ids)}
    for cell, index in enumerate(worst.tolist()):
        x = GAP + cell % COLUMNS * (CELL + GAP)
        y = GAP + cell // COLUMNS * (CELL + CAPTION + GAP)
        picture = images.images[position_of[int(predictions.ids[index])]]
        tile = Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
        sheet.paste(tile.resize((CELL, CELL), Image.Resampling.BICUBIC), (x, y))
        truth, guess = (images.classes[int(labels[index])] for labels in (predictions.labels, predictions.predictions))
        draw.text((x, y + CELL + 2), f"is {truth}"[:17], "black", font)
        draw.text((x, y + CELL + 15), f"{guess}"[:11] + f" {predictions.confidences[index]:.0%}", "#b3261e", font)
    if not len(worst):
        draw.text((GAP, GAP), "no mistakes", "black", font)
    sheet.save(path)
