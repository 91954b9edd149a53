"""What a data source returns: pictures, labels and class names of one split; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cifar_lab.errors import UserError


class DataError(UserError):
    """Data are missing, broken, too large or asked for in a way that they cannot serve; the message names the fix."""


@dataclass(frozen=True)
class SourceInfo:
    """Sizes that are known without reading anything."""

    num_train: int
    num_test: int
    num_classes: int
    image_size: int


class Pixels(Protocol):
    """uint8 (N, H, W, 3): an array, or what decodes the pictures of a slice when asked for them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True)
class RawSplit:
    """One split: pictures, int64 labels (N,), class names.

    Raises DataError for an empty split.
    """

    images: Pixels
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.labels.dtype == np.int64
        assert self.labels.shape == (len(self.images),)
        if not len(self.labels):
            raise DataError("the split holds no pictures")
        assert self.labels.min() >= 0 and self.labels.max() < len(self.classes), "labels outside of the classes"
