"""Encoded pictures (JPEG, PNG, ...) of a data set or in named files: opened, turned upright and decoded; no torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_THREADS = 4  # each may hold a picture of the 179 million pixels that Pillow opens
# Pillow hands these to other programs.
REFUSED = ("EPS", "PDF", "WMF", "GRIB", "BUFR", "HDF5", "MPEG")


@dataclass(frozen=True)
class PictureFile:
    """uint8 (size, size, 3) of a file, or why there are none."""

    path: Path
    pixels: npt.NDArray[np.uint8] | None
    problem: str = ""


def find_pictures(named: Iterable[Path]) -> Iterator[Path]:
    """The files that were named, whatever they are, and below folders those with a picture's suffix, sorted."""
    suffixes = picture_suffixes()
    for path in named:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, files in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(files) if Path(name).suffix.lower() in suffixes)


def picture_suffixes() -> tuple[str, ...]:
    """How the names of pictures' files end."""
    return tuple(suffix for suffix, name in Image.registered_extensions().items() if name in _formats())


def read_pictures(paths: Sequence[Path], size: int) -> list[PictureFile]:
    """Each file's first frame, upright, as RGB, its centre square resized to `size` pixels (bicubic, antialiased)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; what matters is whether it can be decoded
        with ThreadPoolExecutor(MAX_THREADS) as pool:
            return list(pool.map(lambda path: _read(path, size), paths))


def _read(path: Path, size: int) -> PictureFile:
    try:
        if not path.is_file():
            return PictureFile(path, None, "is not a file" if path.exists() else "does not exist")
        with open_picture(path) as opened:
            return PictureFile(path, np.asarray(upright_rgb(opened, size)))
    except UnidentifiedImageError:
        return PictureFile(path, None, "is not a picture (or of a format that is not read)")
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        return PictureFile(path, None, f"cannot be read: {reason}")


def open_picture(file: str | Path | BinaryIO) -> Image.Image:
    """The picture in a file, not decoded yet. Raises what Pillow's plugins please."""
    return Image.open(file, formats=_formats())


def upright_rgb(opened: Image.Image, size: int | None = None) -> Image.Image:
    """First frame of a picture that was opened, turned as its EXIF says, as RGB, with `size` its centre square resized.

    Raises what Pillow's plugins please.
    """
    image = ImageOps.exif_transpose(opened) if "exif" in opened.info else opened
    image = _to_rgb(image)
    return image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB; transparency is dropped, 16-bit greys keep their upper byte."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pictures have no defined range")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of palettes with transparency
    return image.convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in REFUSED)
