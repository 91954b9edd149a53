"""Of the pictures that are trained on: mean and standard deviation, and weights of their classes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cifar_lab.data.cache import SplitMeta, channel_sums
from cifar_lab.data.images import ImageSet
from cifar_lab.data.raw import DataError

_CHUNK_BYTES = 1 << 18  # whose floats stay in a cache


def constant_channels(whole: SplitMeta) -> list[int]:
    """Channels that have one value in all pictures of a split."""
    num, _, height, width = whole.shape
    sums = zip(whole.sums, whole.square_sums, strict=True)
    return [channel for channel, (total, square) in enumerate(sums) if num * height * width * square == total**2]


def mean_std(images: ImageSet, whole: SplitMeta) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of `images` per channel on the 0..1 scale, from exact sums.

    `whole`: the sums of all of `images.pixels`; so the fewer are read of those in the set and those that it leaves out.
    Raises DataError for a channel that has one value.
    """
    num, _, height, width = whole.shape
    used = np.full(num, images.rows is None)
    if images.rows is not None:
        used[images.rows.numpy()] = True
    sums, most = np.zeros((2, 3), np.int64), 2 * len(images) > num
    read = np.flatnonzero(used != most)
    step = max(1, _CHUNK_BYTES // (3 * height * width))
    for start in range(0, len(read), step):
        sums += channel_sums(images.pixels.numpy()[read[start : start + step]])
    if most:
        sums = np.array([whole.sums, whole.square_sums]) - sums
    count = len(images) * height * width
    totals, squares = sums.tolist()  # the products below are too large for int64
    variances = [count * square - total**2 for total, square in zip(totals, squares, strict=True)]
    if not all(variances):
        raise DataError(
            f"channel {variances.index(0)} has one value in all training pictures, so its standard deviation is 0: "
            "give data.mean and data.std"
        )
    return tuple(total / count / 255 for total in totals), tuple(math.sqrt(v) / count / 255 for v in variances)


def class_weights(wanted: str | Sequence[float] | None, images: ImageSet) -> Tensor | None:
    """Weights float64 (classes,) as `train.class_weights` says; of a class without a picture 0 under `balanced`.

    `balanced` is N / (K * count) for N pictures of K classes (King and Zeng 2001). Raises DataError.
    """
    if wanted is None or wanted == "balanced":
        counts = torch.bincount(images.labels.cpu(), minlength=images.num_classes).double()
        return None if wanted is None else torch.where(counts > 0, len(images) / ((counts > 0).sum() * counts), 0.0)
    if len(wanted) != images.num_classes:
        raise DataError(f"train.class_weights has {len(wanted)} numbers, but there are {images.num_classes} classes")
    return torch.tensor(wanted, dtype=torch.float64)
