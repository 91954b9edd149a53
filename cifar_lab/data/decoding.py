"""The pictures of a table's column, decoded when asked for; no torch."""

from __future__ import annotations

import io
import os
from functools import cached_property
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cifar_lab.data.on_disk import File, file_at
from cifar_lab.data.pictures import open_picture, upright_rgb
from cifar_lab.data.raw import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class Pictures:
    """A column of encoded pictures, or of the paths of their files, decoded when asked for.

    With `size`, the shorter side is resized to it (bicubic, antialiased) and the centre square kept; without, all
    pictures must be squares of one size. Broken pictures and mixed sizes raise DataError.
    """

    def __init__(self, cells: pa.ChunkedArray, name: str, size: int | None) -> None:
        self._cells, self._name, self._size = cells, name, size
        self.files: dict[str, File] = {}  # that cells of tables name, as they were when decoded

    def __len__(self) -> int:
        return len(self._cells)

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3), from `size` or the first picture."""
        if self._size is not None:
            return len(self), self._size, self._size, 3
        height, width, _ = self._decode(0, self._cells[0].as_py()).shape
        if height != width:
            raise DataError(
                f"{self._name}: picture 0 is {width} x {height} pixels, not square: give a side with data.args.size="
            )
        return len(self), height, width, 3

    @property
    def names(self) -> list[str]:
        """The files of the pictures where cells are their paths, else none."""
        import pyarrow as pa

        return self._cells.to_pylist() if pa.types.is_string(self._cells.type) else []

    def __getitem__(self, which: slice) -> npt.NDArray[np.uint8]:
        """The pictures of a slice without a step, decoded: uint8 (n, H, W, 3)."""
        start, stop, _ = which.indices(len(self))
        cells = self._cells.slice(start, stop - start).to_pylist()
        out = np.empty((len(cells), *self.shape[1:]), np.uint8)

        def decode_into(position: int) -> None:
            picture = self._decode(start + position, cells[position])
            if picture.shape != out.shape[1:]:
                here, first = (f"{shape[1]} x {shape[0]}" for shape in (picture.shape, out.shape[1:]))
                raise DataError(
                    f"{self._name}: pictures differ in size (picture 0 is {first} pixels, picture {start + position} "
                    f"is {here}): give one side for all with data.args.size="
                )
            out[position] = picture

        with ThreadPool(min(os.cpu_count() or 1, 16)) as pool:
            # Shorter tasks would cost more in the pool than in the decoder.
            pool.map(decode_into, range(len(out)), chunksize=64)
        return out

    def _decode(self, index: int, cell: Any) -> npt.NDArray[np.uint8]:
        if is_named := isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if cell is None:
            raise DataError(f"{self._name}: picture {index} is missing")
        try:
            if is_named and isinstance(cell, str):
                self.files[cell] = file_at(cell)
            with open_picture(io.BytesIO(cell) if isinstance(cell, bytes) else cell) as opened:
                return np.asarray(upright_rgb(opened, self._size))
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
            raise DataError(f"{self._name}: picture {index} cannot be decoded: {error}") from error
