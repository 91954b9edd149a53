"""Which samples are held out and which are used: by a hash of the id within each class, whatever the seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cifar_lab.data.randomness import Purpose, hash64
from cifar_lab.data.raw import DataError


def split_ids(labels: Tensor, num_classes: int, val_size: int, limit: int | None) -> tuple[Tensor, Tensor]:
    """(train_ids, val_ids), ascending positions in `labels` (N,), disjoint.

    Validation takes the `val_size` samples with the smallest hashes, in each class in proportion to its size; training
    takes the next `limit`, or all the rest. Raises DataError if there are not enough.
    """
    num = len(labels)
    left = num - val_size
    if left < (limit or 1):
        raise DataError(
            f"of {num} pictures {val_size} are held out; fewer than {limit or 1} are left: lower data.val_size, "
            "data.limit or data.test_limit"
        )
    ranked = _ranked_by_class(labels, num_classes)
    val_counts = proportional([len(ids) for ids in ranked], val_size)
    rest = [ids[count:] for ids, count in zip(ranked, val_counts, strict=True)]
    train_counts = proportional([len(ids) for ids in rest], left if limit is None else limit)
    return _first(rest, train_counts), _first(ranked, val_counts)


def proportional(counts: Sequence[int], total: int) -> list[int]:
    """`total` shared out in proportion to `counts` by largest remainders; no share exceeds its count."""
    whole = sum(counts)
    assert 0 <= total <= whole
    if whole == 0:
        return [0] * len(counts)
    shares = [count * total // whole for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(counts[i] * total % whole), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _ranked_by_class(labels: Tensor, num_classes: int) -> list[Tensor]:
    """The ids of each class by ascending hash."""
    labels = labels.cpu()
    order = torch.argsort(hash64(Purpose.SPLIT, ids=torch.arange(len(labels))), stable=True)
    return [order[labels[order] == label] for label in range(num_classes)]


def _first(ranked: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    return torch.cat([ids[:count] for ids, count in zip(ranked, counts, strict=True)]).sort().values
