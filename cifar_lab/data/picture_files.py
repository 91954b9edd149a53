"""Picture files that someone names: found, decoded to squares, and a plain word for each that is none."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cifar_lab.data.pictures import num_cores, upright_rgb

MAX_PIXELS = 100_000_000  # 0.3 GB decoded, and so many at a time:
MAX_THREADS = 4
# Pillow hands these to other programs.
REFUSED = ("EPS", "PDF", "WMF", "GRIB", "BUFR", "HDF5", "MPEG")


@dataclass(frozen=True)
class PictureFile:
    """uint8 (size, size, 3) of a file, or why there are none."""

    path: Path
    pixels: npt.NDArray[np.uint8] | None
    problem: str = ""


def find_pictures(named: Iterable[Path]) -> Iterator[Path]:
    """The files that were named, whatever they are, and below folders those with a picture's suffix, sorted.

    Symbolic links are followed, each folder once.
    """
    suffixes = _suffixes()
    for path in named:
        if not os.path.isdir(path):
            yield path
            continue
        seen: set[tuple[int, int]] = set()
        for folder, folders, files in os.walk(path, followlinks=True):
            try:
                place = os.stat(folder)
            except OSError:
                folders.clear()
                continue
            if (place.st_dev, place.st_ino) in seen:
                folders.clear()
                continue
            seen.add((place.st_dev, place.st_ino))
            folders.sort()
            yield from (Path(folder, name) for name in sorted(files) if Path(name).suffix.lower() in suffixes)


def read_pictures(paths: Sequence[Path], size: int) -> list[PictureFile]:
    """Each file's first frame, upright, as RGB, its centre square resized to `size` pixels (bicubic, antialiased)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; what matters is whether it can be decoded
        with ThreadPoolExecutor(min(num_cores(), MAX_THREADS)) as pool:
            return list(pool.map(lambda path: _read(path, size), paths))


def _read(path: Path, size: int) -> PictureFile:
    try:
        if not path.is_file():
            return PictureFile(path, None, _absent(path))
        if path.stat().st_size == 0:
            return PictureFile(path, None, "is empty")
        with Image.open(path, formats=_formats()) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                problem = f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million: shrink it first"
                return PictureFile(path, None, problem)
            return PictureFile(path, np.asarray(upright_rgb(opened, size)))
    except UnidentifiedImageError:
        return PictureFile(path, None, "is not a picture (or of a format that is not read)")
    except Image.DecompressionBombError:
        return PictureFile(path, None, f"has more than {MAX_PIXELS // 10**6} million pixels: shrink it first")
    except OSError as error:
        return PictureFile(path, None, f"cannot be read: {error.strerror or _one_line(error)}")
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error, MemoryError, ...
        return PictureFile(path, None, f"cannot be decoded: {_one_line(error)}")


def _absent(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "is a link to nothing"
    return "is not a file" if path.exists() else "does not exist"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in REFUSED)


@cache
def _suffixes() -> frozenset[str]:
    known = _formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)
