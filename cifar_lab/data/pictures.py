"""Encoded pictures (JPEG, PNG, ...) of a data set or in named files: opened, turned upright and decoded.

No torch, and NumPy in functions alone: programs that only decode start in half of the time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Fit = Literal["crop", "pad", "squash"]
MAX_THREADS = 4  # each may hold a picture of the 179 million pixels that Pillow opens
USUAL = ("JPEG", "PNG")  # tried first: plugins that cannot tell by the first bytes would take a third of the time
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


def read_pictures(paths: Sequence[Path], size: int, fit: Fit) -> list[PictureFile]:
    """Each file's first frame, upright, as RGB, brought to `size` pixels as `upright_rgb` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; what matters is whether it can be decoded
        with ThreadPoolExecutor(MAX_THREADS) as pool:
            return list(pool.map(lambda path: _read(path, size, fit), paths))


def _read(path: Path, size: int, fit: Fit) -> PictureFile:
    import numpy as np

    try:
        if not path.is_file():
            return PictureFile(path, None, "is not a file" if path.exists() else "does not exist")
        with open_picture(path) as opened:
            return PictureFile(path, np.asarray(upright_rgb(opened, size, fit)))
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        return PictureFile(path, None, problem(error))


def problem(error: Exception) -> str:
    """What `open_picture` or `upright_rgb` raised, as what is wrong with a picture."""
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture (or of a format that is not read)"
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return f"cannot be read: {reason}"


def open_picture(file: str | Path | BinaryIO) -> Image.Image:
    """The picture in a file, not decoded yet. Raises what Pillow's plugins please."""
    try:
        return Image.open(file, formats=USUAL)
    except UnidentifiedImageError:
        return Image.open(file, formats=_formats())


def upright_rgb(opened: Image.Image, size: int | None = None, fit: Fit = "crop") -> Image.Image:
    """First frame of a picture that was opened, turned as `ImageOps.exif_transpose` does, as RGB.

    With `size` it is resized (bicubic, antialiased) to such a square: its centre square alone, all of it between black
    edges (`pad`), or all of it, out of proportion (`squash`). Raises what Pillow's plugins please.
    """
    opened.load()  # a PNG may say only behind its pixels how it is turned
    turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
    image = _to_rgb(ImageOps.exif_transpose(opened) if turned else opened)
    if size is None:
        return image
    if fit == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    return {"crop": ImageOps.fit, "pad": ImageOps.pad}[fit](image, (size, size), Image.Resampling.BICUBIC)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB; transparency is dropped, 16-bit greys keep their upper byte."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating-point pictures have no defined range")
    if image.mode == "I" and image.format != "PPM":  # in which 32 bits hold 16
        low, high = image.getextrema()
        if low < 0 or high > 255:  # type: ignore[operator]
            raise ValueError(f"32-bit integers have no defined range beyond 0 to 255, and these are {low} to {high}")
        image = image.convert("L")
    elif image.mode.startswith("I"):
        import numpy as np

        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of palettes with transparency
    return image.convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in REFUSED)
