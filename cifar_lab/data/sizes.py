"""How many pictures a recipe uses, from what its source knows without reading anything."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe


@dataclass(frozen=True)
class DataSizes:
    """Pictures of each split that a recipe uses, their classes, and their sides in pixels before and after resizing."""

    num_train: int
    num_val: int
    num_test: int
    num_classes: int
    source_size: int
    image_size: int


def data_sizes(recipe: Recipe) -> DataSizes | None:
    """The sizes, None where only the data can tell. Raises UsageError."""
    data = recipe.data
    info = importlib.import_module(f"cifar_lab.data.sources.{data.name}").info(**data.args)
    if info is None:
        return None
    left = info.num_train - data.val_size
    if left < (data.limit or 1):
        limit = "" if data.limit is None else f" and data.limit={data.limit}"
        raise UsageError(
            f"data.val_size={data.val_size}{limit} are too many: there are {info.num_train} training images"
        )
    if info.num_test < (data.test_limit or 1):
        raise UsageError(f"data.test_limit={data.test_limit} is more than the {info.num_test} test images")
    return DataSizes(
        num_train=data.limit or left,
        num_val=data.val_size,
        num_test=data.test_limit or info.num_test,
        num_classes=info.num_classes,
        source_size=info.image_size,
        image_size=data.image_size or info.image_size,
    )
