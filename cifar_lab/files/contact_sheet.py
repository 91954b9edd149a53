"""Sheets of small captioned pictures, and the way back from a sheet to its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 8, 8
# Letters that can be read on a page that shows the sheet as large as it is.
CELL, CAPTION, GAP, LETTERS = 112, 36, 8, 13


@dataclass(frozen=True)
class Tile:
    """A picture and up to two lines below it, each a text and its colour."""

    picture: Image.Image
    captions: Sequence[tuple[str, str]]


def draw_sheet(path: Path, tiles: Sequence[Tile], empty: str = "") -> None:
    """Write a picture file of up to 64 tiles; `empty` is what it says when there is none."""
    rows = max(1, -(-len(tiles) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, rows * (CELL + CAPTION + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    for index, tile in enumerate(tiles[: COLUMNS * ROWS]):
        x, y = _corner(index)
        sheet.paste(tile.picture.resize((CELL, CELL), Image.Resampling.BICUBIC), (x, y))
        for line, (text, colour) in enumerate(tile.captions):
            cut = (text, *(f"{text[:kept]}…" for kept in range(len(text) - 1, 0, -1)))
            fitting = next(part for part in cut if font.getlength(part) < CELL + GAP)
            draw.text((x, y + CELL + 2 + (LETTERS + 3) * line), fitting, colour, font)
    if not tiles:
        draw.text((GAP, GAP), empty, "black", font)
    sheet.save(path, compress_level=2)  # of a PNG: a third of the time of 6, for a tenth more bytes


def cut_tile(sheet: Image.Image, index: int) -> Image.Image:
    """Picture `index` of a sheet, `CELL` pixels wide and high."""
    x, y = _corner(index)
    return sheet.crop((x, y, x + CELL, y + CELL))


def _corner(index: int) -> tuple[int, int]:
    return GAP + index % COLUMNS * (CELL + GAP), GAP + index // COLUMNS * (CELL + CAPTION + GAP)
