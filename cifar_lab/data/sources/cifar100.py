"""CIFAR-100: 60,000 pictures of 32 x 32 pixels in 100 classes, of which five each make a coarse one."""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from cifar_lab.data import cifar
from cifar_lab.data.raw import RawSplit, SourceInfo

find = partial(cifar.find, 100)


def load(
    split: str,
    *,
    root: str | None,
    labels: Annotated[Literal["fine", "coarse"], Field(description="The 100 classes, or the 20 coarse ones.")] = "fine",
) -> RawSplit | None:
    """`split` from the first place that holds it. Raises DataError."""
    return cifar.load(100, split, root, f"{labels}_label")


def cache_key(*, root: str | None, labels: str = "fine") -> str:
    """The labels, and the place with the stamp of its files or the hub id."""
    return f"{labels} {cifar.cache_key(100, root)}"


def info(*, labels: str = "fine") -> SourceInfo:
    """The sizes of the published data set."""
    return SourceInfo(50_000, 10_000, 100 if labels == "fine" else 20, image_size=32)
