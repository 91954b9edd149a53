"""Held-out, tested and limited samples: balanced, disjoint, exact in number, and the same for every seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cifar_lab.data.images import ImageSet, Splits
from cifar_lab.data.splits import divide, proportional
from cifar_lab.errors import UsageError
from cifar_lab.recipe.schema import Data

BALANCED = torch.arange(1000) % 10
UNEVEN = torch.tensor([0] * 500 + [1] * 300 + [2] * 7)


def images(labels: torch.Tensor, name: str = "whole") -> ImageSet:
    """Pictures of one pixel."""
    pixels = torch.zeros((len(labels), 3, 1, 1), dtype=torch.uint8)
    return ImageSet(pixels, labels, torch.arange(len(labels)), tuple("abcdefghij"), name)


def divided(
    labels: torch.Tensor, *, test: torch.Tensor | None = BALANCED, val: torch.Tensor | None = None, **keys: Any
) -> Splits:
    """What a recipe makes of a training split with these labels, with the others' own splits where they are given."""
    own = [None if of is None else images(of, "other") for of in (val, test)]
    return divide(Splits(images(labels), *own, sums=None), Data(**keys))


def ids(labels: torch.Tensor, **keys: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Those that are trained on and those that are held out."""
    found = divided(labels, **keys)
    return found.train.ids, torch.empty(0, dtype=torch.int64) if found.val is None else found.val.ids


def counts(labels: torch.Tensor, ids: torch.Tensor) -> list[int]:
    return torch.bincount(labels[ids], minlength=int(labels.max()) + 1).tolist()


def test_everything_is_used_once() -> None:
    train, val = ids(BALANCED, val_size=100)
    assert counts(BALANCED, val) == [10] * 10
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(1000))
    for some in (train, val):
        assert torch.equal(some, some.sort().values)


def test_classes_are_drawn_in_proportion() -> None:
    train, val = ids(UNEVEN, val_size=81, limit=403)
    assert counts(UNEVEN, val) == [50, 30, 1]
    assert counts(UNEVEN, train) == [250, 150, 3]
    assert not set(train.tolist()) & set(val.tolist())


def test_limit_takes_the_next_and_leaves_validation_alone() -> None:
    all_train, val = ids(BALANCED, val_size=100)
    some, same_val = ids(BALANCED, val_size=100, limit=200)
    more, _ = ids(BALANCED, val_size=100, limit=300)
    assert torch.equal(val, same_val)
    assert counts(BALANCED, some) == [20] * 10
    assert set(some.tolist()) < set(more.tolist()) < set(all_train.tolist())
    # without validation, the first ones by hash are those that were held out
    assert torch.equal(ids(BALANCED, val_size=0, limit=100)[0], val)


def test_the_choice_never_changes() -> None:
    # Published validation errors are those of these samples.
    assert ids(BALANCED, val_size=10)[1].tolist() == [39, 94, 187, 402, 498, 526, 781, 910, 973, 985]
    assert not torch.equal(ids(BALANCED, val_size=0, limit=500)[0], torch.arange(500))
    # Checkpoints of earlier versions go on: the fingerprint is of the whole split and the ids that are trained on.
    train = divided(BALANCED, val_size=100, limit=200).train
    assert train.fingerprint == images(BALANCED).subset(train.ids).fingerprint


def test_no_validation() -> None:
    found = divided(BALANCED, val_size=0)
    assert found.val is None
    assert torch.equal(found.train.ids, torch.arange(1000))


def test_test_images_are_limited_evenly() -> None:
    for limit, each in ((50, 5), (1000, 100)):
        assert torch.bincount(divided(BALANCED, test_limit=limit).test.labels).tolist() == [each] * 10


def test_a_part_scales_with_the_data() -> None:
    for num, held_out in ((1000, 100), (300, 30), (55, 6)):
        train, val = ids(BALANCED[:num])
        assert (len(train), len(val)) == (num - held_out, held_out)
    assert len(ids(BALANCED, val_size=0.25)[1]) == 250
    assert len(ids(BALANCED, val_size=1)[1]) == 1


@pytest.mark.parametrize(("size", "each"), [(200, 20), (0.2, 20), (50, 5)])
def test_a_test_split_is_cut_off_whatever_is_held_out(size: float, each: int) -> None:
    found = divided(BALANCED, test=None, test_size=size)
    assert torch.bincount(found.test.labels).tolist() == [each] * 10
    parts = [split.ids for split in (found.train, found.val, found.test)]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    assert len(found.val) == (1000 - 10 * each) // 10  # a tenth of what is left
    other = divided(BALANCED, test=None, test_size=size, val_size=0, limit=300)
    assert torch.equal(found.test.ids, other.test.ids)
    # Those that would be held out without a test split are tested on: the smallest hashes.
    assert torch.equal(found.test.ids, ids(BALANCED, val_size=10 * each)[1])


def test_an_own_test_split_stands_aside_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cifar_lab")
    assert len(divided(BALANCED, test_size=100).test) == 100
    assert caplog.messages == ["the data's own test split is not used, since data.test_size is 100"]


def test_without_a_test_split() -> None:
    for own in (None, BALANCED):
        found = divided(BALANCED, test=own, test_size=0)
        assert found.test is None and len(found.train) == 900
    with pytest.raises(
        UsageError, match=r"the data have no test split: set data\.test_size to .* or to 0 to go without"
    ):
        divided(BALANCED, test=None)
    with pytest.raises(UsageError, match=r"data\.test_limit=5 is more than the 0 test images"):
        divided(BALANCED, test_size=0, test_limit=5)


def test_an_own_validation_split_is_held_out_and_nothing_is_cut_off() -> None:
    found = divided(BALANCED, val=BALANCED[:70])
    assert (len(found.train), len(found.val), found.val.fingerprint) == (1000, 70, "other")


@pytest.mark.parametrize("sizes", [{}, {"test_size": 0.3}, {"val_size": 5}, {"val_size": 0.9}])
def test_each_class_keeps_a_picture_to_train_on(sizes: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cifar_lab")
    labels = torch.tensor([0] * 10 + [1, 2, 3] + [4] * 2)
    found = divided(labels, test=None, **{"test_size": 0, **sizes})
    assert torch.bincount(found.train.labels).min() == 1
    assert {1, 2, 3} < set(found.train.labels.tolist())
    assert caplog.messages == ["the only picture of a class is trained on and not held out: 3 (b, c, d)"]


def test_a_single_picture_is_not_told_where_nothing_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cifar_lab")
    divided(torch.tensor([0, 0, 1]), val_size=0)
    assert caplog.messages == []


def test_a_set_of_one_class_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    divided(torch.zeros(20, dtype=torch.int64))
    assert caplog.messages == ["all training pictures are of the class 'a': nothing can be learnt from them"]


@pytest.mark.parametrize("val_size", [1000, 2000])
def test_validation_leaves_something_to_train_on(val_size: int) -> None:
    with pytest.raises(UsageError, match=f"data.val_size={val_size} are too many: there are 1000 training images"):
        ids(BALANCED, val_size=val_size)


def test_limits_beyond_the_data_name_all_keys() -> None:
    assert len(ids(BALANCED, val_size=100, limit=900)[0]) == 900
    with pytest.raises(UsageError, match=r"data\.val_size=100 and data\.limit=901 are too many: there are 1000"):
        ids(BALANCED, val_size=100, limit=901)
    with pytest.raises(UsageError, match=r"data\.test_size=0\.5 and data\.val_size=500 are too many: there are 1000"):
        ids(BALANCED, test_size=0.5, val_size=500)


@pytest.mark.parametrize("total", range(0, 23))
def test_shares_are_exact_and_never_beyond_their_counts(total: int) -> None:
    class_counts = [10, 1, 0, 7, 4]
    shares = proportional(class_counts, total)
    assert sum(shares) == total
    for share, count in zip(shares, class_counts, strict=True):
        assert abs(share - count * total / 22) < 1
        assert share <= count


@pytest.mark.parametrize("total", range(0, 23))
def test_shares_leave_what_is_to_be_kept(total: int) -> None:
    class_counts = [10, 1, 0, 7, 4]
    shares = proportional(class_counts, total, keep=1)
    assert sum(shares) == min(total, 18)
    for share, count in zip(shares, class_counts, strict=True):
        assert 0 <= share <= max(count - 1, 0)
