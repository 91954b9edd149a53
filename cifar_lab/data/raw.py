"""What a data source returns: pictures, labels and class names of one split; no torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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

    @property
    def kept(self) -> npt.NDArray[np.int64]:
        """Places of the pictures that are not broken, once all are decoded."""
        return np.delete(np.arange(len(self.labels)), [*getattr(self.images, "broken", ())])


def broken_pictures(raw: Mapping[str, RawSplit], listing: Path) -> str:
    """What is said of those that are left out, once all are decoded; `listing` gets all of them.

    Raises DataError where they must not be left out, or no others are there.
    """
    listing.unlink(missing_ok=True)
    found = [(split, *item) for split in raw.values() for item in getattr(split.images, "broken", {}).items()]
    if not found:
        return ""
    listing.write_text("".join(f"{what}\n" for *_, what in found), encoding="utf-8", errors="surrogateescape")
    classes = Counter(split.classes[split.labels[place]] for split, place, _ in found)
    which = ", ".join(f"{count:,} of {name}" for name, count in classes.items())
    said = (
        f"{len(found):,} of {sum(len(split.labels) for split in raw.values()):,} pictures are broken "
        f"({which if len(classes) < 6 else f'of {len(classes):,} classes'}): "
        f"{'; '.join([what for *_, what in found[:3]] + ['...'] * (len(found) > 3))} (all of them: {listing})"
    )
    if not all(getattr(split.images, "skip", False) for split, *_ in found):
        raise DataError(f"{said}. Mend or remove them, or leave them out with data.args.on_broken=skip")
    if not all(len(split.kept) for split in raw.values()):
        raise DataError(f"{said}: no others are left in a split")
    return f"; left out: {said}"
