"""How many pictures a recipe uses, from what its source has of each split; no torch."""

from dataclasses import dataclass

from cifar_lab.data.sources import find_source
from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schema import Data


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
    source = find_source(data.name)
    info = source.info(**data.args) if hasattr(source, "info") else None
    if info is None:
        return None
    num_train, num_val, num_test = shares(data, info.num_train, None, info.num_test)
    sides = info.image_size, data.image_size or info.image_size
    return DataSizes(data.limit or num_train, num_val, data.test_limit or num_test, info.num_classes, *sides)


def shares(data: Data, num_train: int, num_val: int | None, num_test: int | None) -> tuple[int, int, int]:
    """Pictures to train on, to hold out and to test on before limits, of a source's own; None: it has no such split.

    A part of the test split is one of all training pictures, a part that is held out one of those that this leaves.
    Raises UsageError.
    """
    left, asked = num_train, []
    if data.test_size is not None:
        num_test = _number(data.test_size, left)
        left, asked = left - num_test, [f"data.test_size={data.test_size}"]
    elif num_test is None:
        raise UsageError(
            "the data have no test split: set data.test_size to how many training pictures become one (a number, "
            "or a part such as 0.1), or to 0 to go without"
        )
    if num_val is None:
        num_val = _number(data.val_size, left)
        left, asked = left - num_val, [*asked, f"data.val_size={data.val_size}"]
    if left < (data.limit or 1):
        asked += [] if data.limit is None else [f"data.limit={data.limit}"]
        raise UsageError(f"{' and '.join(asked)} are too many: there are {num_train} training images")
    if num_test < (data.test_limit or 0):
        raise UsageError(f"data.test_limit={data.test_limit} is more than the {num_test} test images")
    return left, num_val, num_test


def _number(size: float, whole: int) -> int:
    return size if isinstance(size, int) else round(size * whole)
