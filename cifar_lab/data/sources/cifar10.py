"""CIFAR-10: 60,000 pictures of 32 x 32 pixels in ten classes."""

from functools import partial

from cifar_lab.data import cifar
from cifar_lab.data.raw import RawSplit, SourceInfo

find = partial(cifar.find, 10)


def load(split: str, *, root: str | None) -> RawSplit | None:
    """`split` from the first place that holds it. Raises DataError."""
    return cifar.load(10, split, root, "label")


def cache_key(*, root: str | None) -> str:
    """The place with the stamp of its files, or the hub id."""
    return cifar.cache_key(10, root)


def info() -> SourceInfo:
    """The sizes of the published data set."""
    return SourceInfo(num_train=50_000, num_test=10_000, num_classes=10, image_size=32)
