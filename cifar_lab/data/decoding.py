"""The pictures of a table's column, decoded when asked for; no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cifar_lab.data.decoder import Job, decode, decode_all
from cifar_lab.data.on_disk import File, file_at
from cifar_lab.data.pictures import Fit
from cifar_lab.data.raw import DataError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("cifar_lab")

JOB_BYTES = 1 << 20  # of encoded or decoded pictures, 0.03 s of one core
FEW_JOBS = 16
SAY_EVERY = 5.0  # seconds


class Pictures:
    """A column of encoded pictures, or of the paths of their files, decoded when asked for.

    With `size` they are brought to it as `upright_rgb` does; without, all must be squares of one size, else DataError.
    Of those decoded so far `broken` has by their places what is wrong; what is decoded of them means nothing.
    """

    def __init__(
        self, cells: pa.ChunkedArray, name: str, *, size: int | None = None, fit: Fit = "crop", on_broken: str = "error"
    ) -> None:
        if size is None and fit != "crop":
            raise DataError(f"data.args.fit={fit} needs a size to bring pictures to: give it with data.args.size=")
        self._cells, self._name, self._size, self._fit = cells, name, size, fit
        self.skip = on_broken == "skip"
        self.broken: dict[int, str] = {}
        self.files: dict[str, File] = {}  # that cells of tables name, as they were when decoded

    def __len__(self) -> int:
        return len(self._cells)

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3), from `size` or the first picture that is not broken."""
        side = self._size or 1
        for index in range(0 if self._size else len(self)):
            found = decode(next(self._jobs(index, index + 1, 0)))[1][0]
            if isinstance(found, tuple):
                side, height = found
                if side != height:
                    raise DataError(
                        f"{self._name}: picture {index} is {side} x {height} pixels, not square: give a side with "
                        "data.args.size="
                    )
                break
        return len(self), side, side, 3

    @property
    def names(self) -> list[str]:
        """The files of the pictures where cells are their paths, else none."""
        import pyarrow as pa

        return self._cells.to_pylist() if pa.types.is_string(self._cells.type) else []

    def __getitem__(self, which: slice) -> npt.NDArray[np.uint8]:
        """The pictures of a slice without a step, decoded: uint8 (n, H, W, 3)."""
        start, stop, _ = which.indices(len(self))
        jobs = (next(self._jobs(place, place + 1, self.shape[1])) for place in range(start, stop))
        return np.concatenate([self._pixels(start + place, *decode(job)) for place, job in enumerate(jobs)])

    def batches(self) -> Iterator[npt.NDArray[np.uint8]]:
        """All pictures in their order, decoded, uint8 (n, H, W, 3) at a time; many by several processes."""
        total, done, begun = len(self), 0, time.monotonic()
        jobs, said = self._jobs(0, total, self.shape[1]), begun
        first = list(islice(jobs, FEW_JOBS))
        with closing(decode_all(chain(first, jobs), alone=len(first) < FEW_JOBS)) as decoded:
            for answer in decoded:
                yield (pixels := self._pixels(done, *answer))
                done, now = done + len(pixels), time.monotonic()
                if now - said > SAY_EVERY:
                    said, rate = now, done / (now - begun)
                    text = f"{done:,} of {total:,} pictures decoded, {rate:,.0f} a second"
                    logger.info("%s: %s, %.0f s left", self._name, text, (total - done) / rate)

    def _pixels(self, start: int, pixels: bytes, wrong: dict[int, str | tuple[int, int]]) -> npt.NDArray[np.uint8]:
        """Of those from `start`; broken ones are noted. Raises DataError where one has another size."""
        _, height, width, _ = self.shape
        for place, what in wrong.items():
            cell = self._cells[start + place].as_py()
            path = cell.get("path") if isinstance(cell, dict) else cell
            label = path if isinstance(path, str) else f"{self._name}: picture {start + place}"
            if isinstance(what, tuple):
                raise DataError(
                    f"{self._name}: pictures differ in size ({label} is {what[0]} x {what[1]} pixels, not {width} x "
                    f"{height}): give one side for all with data.args.size="
                )
            self.broken[start + place] = f"{label} {what}"
        return np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)

    def _jobs(self, start: int, stop: int, side: int) -> Iterator[Job]:
        """Pictures or their paths, some at a time; files that cells of tables name are noted."""
        cells: list[bytes | str | None] = []
        num_bytes = 0
        for scalar in self._cells.slice(start, stop - start):
            cell, start = scalar.as_py(), start + 1
            if isinstance(cell, dict):
                cell = cell.get("bytes") or cell.get("path")
                if isinstance(cell, str):
                    self.files[cell] = file_at(cell)
            cells.append(cell)
            num_bytes += max(3 * side * side, file_at(cell)[1] if isinstance(cell, str) else len(cell or b""))
            if num_bytes >= JOB_BYTES or start == stop:
                yield cells, side, self._fit if self._size else None
                cells, num_bytes = [], 0
