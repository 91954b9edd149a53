"""Held-out and limited samples: balanced, disjoint, exact in number, and the same for every seed."""

from __future__ import annotations

import pytest
import torch

from cifar_lab.data.raw import DataError
from cifar_lab.data.splits import proportional, split_ids

BALANCED = torch.arange(1000) % 10
UNEVEN = torch.tensor([0] * 500 + [1] * 300 + [2] * 7)


def counts(labels: torch.Tensor, ids: torch.Tensor) -> list[int]:
    return torch.bincount(labels[ids], minlength=int(labels.max()) + 1).tolist()


def test_everything_is_used_once() -> None:
    train, val = split_ids(BALANCED, 10, 100, None)
    assert counts(BALANCED, val) == [10] * 10
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(1000))
    for ids in (train, val):
        assert torch.equal(ids, ids.sort().values)


def test_classes_are_drawn_in_proportion() -> None:
    train, val = split_ids(UNEVEN, 3, 81, 403)
    assert counts(UNEVEN, val) == [50, 30, 1]
    assert counts(UNEVEN, train) == [250, 150, 3]
    assert not set(train.tolist()) & set(val.tolist())


def test_limit_takes_the_next_and_leaves_validation_alone() -> None:
    all_train, val = split_ids(BALANCED, 10, 100, None)
    some, same_val = split_ids(BALANCED, 10, 100, 200)
    more, _ = split_ids(BALANCED, 10, 100, 300)
    assert torch.equal(val, same_val)
    assert counts(BALANCED, some) == [20] * 10
    assert set(some.tolist()) < set(more.tolist()) < set(all_train.tolist())
    # without validation, the first ones by hash are those that were held out
    assert torch.equal(split_ids(BALANCED, 10, 0, 100)[0], val)


def test_the_choice_never_changes() -> None:
    # Published validation errors are those of these samples.
    assert split_ids(BALANCED, 10, 10, None)[1].tolist() == [39, 94, 187, 402, 498, 526, 781, 910, 973, 985]
    assert not torch.equal(split_ids(BALANCED, 10, 0, 500)[0], torch.arange(500))


def test_no_validation() -> None:
    train, val = split_ids(BALANCED, 10, 0, None)
    assert len(val) == 0
    assert val.dtype == torch.int64
    assert torch.equal(train, torch.arange(1000))


def test_test_images_are_limited_evenly() -> None:
    assert counts(BALANCED, split_ids(BALANCED, 10, 0, 50)[0]) == [5] * 10
    assert torch.equal(split_ids(BALANCED, 10, 0, 1000)[0], torch.arange(1000))


@pytest.mark.parametrize("val_size", [1000, 2000])
def test_validation_leaves_something_to_train_on(val_size: int) -> None:
    with pytest.raises(DataError, match=f"of 1000 pictures {val_size} are held out; fewer than 1 are left: lower"):
        split_ids(BALANCED, 10, val_size, None)


def test_limits_beyond_the_data_name_both_numbers() -> None:
    assert len(split_ids(BALANCED, 10, 100, 900)[0]) == 900
    with pytest.raises(DataError, match=r"of 1000 pictures 100 are held out; fewer than 901 are left.*data\.limit"):
        split_ids(BALANCED, 10, 100, 901)


@pytest.mark.parametrize("total", range(0, 23))
def test_shares_are_exact_and_never_beyond_their_counts(total: int) -> None:
    class_counts = [10, 1, 0, 7, 4]
    shares = proportional(class_counts, total)
    assert sum(shares) == total
    for share, count in zip(shares, class_counts, strict=True):
        assert abs(share - count * total / 22) < 1
        assert share <= count
