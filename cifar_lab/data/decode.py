"""One pass over a split: planes (N, 3, H, W), checksums and exact channel sums; no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cifar_lab.data.raw import DataError, RawSplit

_CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class SplitMeta:
    """What is known of a decoded split; sums are over the pixels of each channel, of values 0 to 255."""

    shape: tuple[int, int, int, int]  # (N, 3, H, W)
    images_sha256: str
    labels_sha256: str
    sums: tuple[int, ...]
    square_sums: tuple[int, ...]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> SplitMeta:
        """The inverse of `dataclasses.asdict` and JSON."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        return cls(**plain)

    def fingerprint(self, classes: Sequence[str]) -> str:
        """sha256 over pictures, labels and class names: equal data have equal fingerprints, wherever they came from."""
        content = {"shape": self.shape, "images": self.images_sha256, "labels": self.labels_sha256}
        return hashlib.sha256(json.dumps({**content, "classes": list(classes)}, sort_keys=True).encode()).hexdigest()

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and population standard deviation per channel on the 0..1 scale. Raises DataError for a constant one."""
        count = self.shape[0] * self.shape[2] * self.shape[3]
        variances = [count * square - total**2 for total, square in zip(self.sums, self.square_sums, strict=True)]
        if not all(variances):
            raise DataError(f"channel {variances.index(0)} has one value in all training pictures: nothing is in it")
        mean = tuple(total / count / 255 for total in self.sums)
        return mean, tuple(math.sqrt(variance) / count / 255 for variance in variances)


def decode_split(raw: RawSplit, write: Callable[[npt.NDArray[np.uint8]], object]) -> SplitMeta:
    """Hand the split to `write` in chunks (n, 3, H, W), and sum it up."""
    num, height, width, _ = raw.shape
    digest = hashlib.sha256()
    sums, square_sums = np.zeros(3, np.int64), np.zeros(3, np.int64)
    rows = max(1, _CHUNK_BYTES // (3 * height * width))
    for start in range(0, num, rows):
        planes = np.ascontiguousarray(raw.rows(start, min(start + rows, num)).transpose(0, 3, 1, 2))
        digest.update(planes.data)
        for channel in range(3):
            # float64 holds every partial sum of a chunk exactly, and its dot product is the fast one
            values = planes[:, channel].astype(np.float64).ravel()
            sums[channel] += int(values.sum())
            square_sums[channel] += int(values @ values)
        write(planes)
    return SplitMeta(
        shape=(num, 3, height, width),
        images_sha256=digest.hexdigest(),
        labels_sha256=hashlib.sha256(raw.labels.astype("<i8").data).hexdigest(),
        sums=tuple(sums.tolist()),
        square_sums=tuple(square_sums.tolist()),
    )


def check_memory(shapes: Sequence[Sequence[int]], max_gib: float) -> None:
    """Raise DataError if the decoded splits (train, test), given as (N, 3, H, W), take more than `max_gib`."""
    gib = sum(math.prod(shape) for shape in shapes) / 2**30
    if gib > max_gib:
        (num_train, _, height, width), (num_test, *_) = shapes
        raise DataError(
            f"{num_train:,} training and {num_test:,} test pictures of {width} x {height} pixels take {gib:.2f} GiB "
            f"decoded, more than data.max_gib={max_gib:g}: raise it if the memory is there, or shrink the pictures "
            "where the source has an argument for it (data.limit does not help: all pictures are cached)"
        )
