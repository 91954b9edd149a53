"""Encoded pictures (JPEG, PNG, ...) and their decoding in a thread pool; no torch."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cifar_lab.data.raw import DataError

logger = logging.getLogger("cifar_lab")

_EXPANDED = {"1": "black-and-white", "L": "grey", "LA": "grey", "La": "grey", "I": "grey", "I;16": "grey"}


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
            with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as opened:
                mode = opened.mode
                return np.asarray(upright_rgb(opened, self._size)), mode
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
            raise DataError(f"{self._name}: picture {index} cannot be decoded: {error}") from error

    def _say_expanded(self, mode: str, index: int) -> None:
        kind = _EXPANDED.get(mode)
        if kind is not None and kind not in self._said:
            self._said.add(kind)
            logger.warning("%s: %s pictures are expanded to RGB (the first is picture %d)", self._name, kind, index)


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
