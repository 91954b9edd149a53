"""300 pictures as people have them: sizes, shapes, formats mixed, some turned by EXIF, two broken, files of others."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = {"lemon": (220, 210, 60), "lime": (90, 190, 70), "plum": (120, 50, 130)}
ORIENTATION = 0x0112
_ENDINGS = ("jpg", "png", "JPEG", "webp", "gif", "bmp", "tif")
_TURNED = Image.Transpose.ROTATE_90, 6  # a camera that was held upright stores this, and this number


def draw_folder(root: Path, num: int = 300) -> None:
    """ROOT/CLASS/* with `num` whole pictures, two broken ones and what cameras, systems and editors leave there."""
    draw = np.random.default_rng(0)
    for i in range(num):
        kind = list(KINDS)[i % len(KINDS)]
        image = _fruit(KINDS[kind], draw)
        exif = image.getexif()
        ending = _ENDINGS[i % len(_ENDINGS)]
        if ending == "jpg":
            turn, exif[ORIENTATION] = _TURNED
            image = image.transpose(turn)
        folder = root / kind / ("a day out" if i % 4 == 0 else "")
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i:03d}.{ending}", exif=exif)
    whole = (root / "lemon" / "a day out" / "000.jpg").read_bytes()
    (root / "lemon" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "lime" / "empty.png").touch()
    for name in (".DS_Store", "lemon/Thumbs.db", "lemon/._001.png", "lime/notes.txt", ".ipynb_checkpoints/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"of somebody else")


def write_table(root: Path, to: Path) -> None:
    """A csv with the paths of the whole pictures below `root` and their classes in a column `kind`."""
    rows = [(path, path.relative_to(root).parts[0]) for path in sorted(root.rglob("[0-9]*.*"))]
    with to.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "kind"), *((path.relative_to(to.parent), kind) for path, kind in rows)])


def _fruit(colour: tuple[int, int, int], draw: np.random.Generator) -> Image.Image:
    """A disc of about this colour somewhere on another one, among noise."""
    width, height, radius = (int(draw.integers(low, high)) for low, high in ((48, 120), (48, 120), (12, 20)))
    image = Image.new("RGB", (width, height), tuple(draw.integers(0, 256, 3)))
    x, y = (int(draw.integers(radius, side - radius)) for side in (width, height))
    shade = tuple(int(value) for value in np.clip(colour + draw.normal(0, 25, 3), 0, 255))
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)
    noisy = np.asarray(image) + draw.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
