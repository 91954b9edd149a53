"""Encoded pictures (JPEG, PNG, ...) of a data set or in named files: opened, turned upright and decoded; no torch."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_lab.data.raw import DataError

logger = logging.getLogger("cifar_lab")

_EXPANDED = {"1": "black-and-white", "L": "grey", "LA": "grey", "La": "grey", "I": "grey", "I;16": "grey"}
MAX_PIXELS = 100_000_000  # 0.3 GB decoded, and so many at a time:
MAX_THREADS = 4
# Pillow hands these to other programs.
REFUSED = ("EPS", "PDF", "WMF", "GRIB", "BUFR", "HDF5", "MPEG")


class Pictures:
    """`num` encoded pictures; `read(start, stop)` returns the bytes or the files of some of them.

    With `size`, the shorter side is resized to it (bicubic, antialiased) and the centre square kept; without, all
    pictures must be squares of one size. Broken pictures and mixed sizes raise DataError.
    """

    def __init__(
        self, read: Callable[[int, int], Sequence[bytes | Path]], num: int, *, name: str, size: int | None = None
    ) -> None:
        if size is not None and size < 1:
            raise DataError(f"data.args.size={size}: must be at least 1")
        self._read, self._num, self._name, self._size = read, num, name, size
        self._said: set[str] = set()

    def __len__(self) -> int:
        return self._num

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3), from `size` or the first picture."""
        if self._size is not None:
            return self._num, self._size, self._size, 3
        picture, _ = self._decode_one(0, self._read(0, 1)[0])
        height, width, _ = picture.shape
        if height != width:
            raise DataError(
                f"{self._name}: picture 0 is {width} x {height} pixels, not square: give a side with data.args.size="
            )
        return self._num, height, width, 3

    def __getitem__(self, which: slice) -> npt.NDArray[np.uint8]:
        """The pictures of a slice without a step, decoded: uint8 (n, H, W, 3)."""
        start, stop, _ = which.indices(self._num)
        encoded = self._read(start, stop)
        out = np.empty((len(encoded), *self.shape[1:]), np.uint8)

        def decode_run(first: int) -> list[tuple[int, str]]:
            return [
                (i, self._decode_into(out, i, start + i, encoded[i])) for i in range(first, min(first + run, len(out)))
            ]

        run = 64  # short tasks would cost more in the pool than in the decoder
        with ThreadPoolExecutor(num_cores()) as pool:
            modes = [pair for pairs in pool.map(decode_run, range(0, len(out), run)) for pair in pairs]
        for position, mode in modes:
            self._say_expanded(mode, start + position)
        return out

    def _decode_into(self, out: npt.NDArray[np.uint8], position: int, index: int, encoded: bytes | Path) -> str:
        picture, mode = self._decode_one(index, encoded)
        if picture.shape != out.shape[1:]:
            here, first = (f"{shape[1]} x {shape[0]}" for shape in (picture.shape, out.shape[1:]))
            raise DataError(
                f"{self._name}: pictures differ in size (picture 0 is {first} pixels, picture {index} is {here}): "
                f"give one side for all with data.args.size="
            )
        out[position] = picture
        return mode

    def _decode_one(self, index: int, encoded: bytes | Path) -> tuple[npt.NDArray[np.uint8], str]:
        try:
            file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
            with Image.open(file, formats=_formats()) as opened:
                mode = opened.mode
                return np.asarray(upright_rgb(opened, self._size)), mode
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
            raise DataError(f"{self._name}: picture {index} cannot be decoded: {error}") from error

    def _say_expanded(self, mode: str, index: int) -> None:
        kind = _EXPANDED.get(mode)
        if kind is not None and kind not in self._said:
            self._said.add(kind)
            logger.warning("%s: %s pictures are expanded to RGB (the first is picture %d)", self._name, kind, index)


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


def upright_rgb(opened: Image.Image, size: int | None = None) -> Image.Image:
    """First frame of a picture that was opened, turned as its EXIF says, as RGB, with `size` its centre square resized.

    Raises what Pillow's plugins please.
    """
    image = ImageOps.exif_transpose(opened) if "exif" in opened.info else opened
    image = _to_rgb(image)
    return image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def num_cores() -> int:
    """Cores that this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


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


@cache
def _suffixes() -> frozenset[str]:
    known = _formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)
