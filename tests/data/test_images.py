"""load_images and ImageSet, on drawn shapes and on the real CIFAR-10."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support.pictures import random_pictures

from cifar_lab.data.images import ImageSet, Splits, load_images
from cifar_lab.data.raw import DataError
from cifar_lab.data.splits import divide
from cifar_lab.data.statistics import mean_std
from cifar_lab.recipe.schema import Data


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    args = {"num_train": 300, "num_test": 50}
    return load_images("shapes", args, root=None, max_gib=1, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real(cifar10_root: Path) -> Splits:
    return load_images("cifar10", {}, root=str(cifar10_root), max_gib=1)  # the cache of the session, see conftest


def test_both_splits_with_their_ids(small: Splits) -> None:
    train, test = small.train, small.test
    assert small.val is None
    assert (len(train), len(test), train.num_classes, train.image_size) == (300, 50, 10, 32)
    assert train.images.dtype == torch.uint8
    assert train.images.shape == (300, 3, 32, 32)
    assert torch.equal(train.ids, torch.arange(300))
    assert torch.equal(test.labels, torch.arange(50) % 10)
    assert train.fingerprint != test.fingerprint


def test_the_fingerprint_is_that_of_the_content(small: Splits, tmp_path: Path) -> None:
    def load(**args: int) -> ImageSet:
        return load_images(
            "shapes", {"num_train": 300, "num_test": 50} | args, root=None, max_gib=1, cache_dir=tmp_path
        ).train

    assert load().fingerprint == load(num_test=60).fingerprint == small.train.fingerprint
    assert load(num_train=299).fingerprint != small.train.fingerprint


def test_a_subset_has_what_belongs_to_its_ids(small: Splits) -> None:
    train = small.train
    ids = torch.tensor([3, 10, 250])
    once = train.subset(ids)
    assert torch.equal(once.ids, ids)
    assert torch.equal(once.images, train.images[ids])
    twice = once.subset(torch.tensor([10, 250]))
    assert torch.equal(twice.labels, train.labels[[10, 250]])
    assert len({train.fingerprint, once.fingerprint, twice.fingerprint, train.subset(ids + 1).fingerprint}) == 4
    assert train.subset(ids).fingerprint == once.fingerprint
    assert train.subset(train.ids) is train
    assert once.pixels is twice.pixels is train.pixels  # nothing is copied
    assert twice.rows_of(torch.tensor([1, 0])).tolist() == [250, 10]


@pytest.mark.parametrize("ids", [[3, 300], [3, 2], [3, 3]])
def test_a_subset_of_other_ids_is_a_mistake(small: Splits, ids: list[int]) -> None:
    with pytest.raises(AssertionError):
        small.train.subset(torch.tensor(ids))


def test_moving_keeps_everything(small: Splits) -> None:
    few, meta = small.train.subset(torch.tensor([3, 10, 250])), torch.device("meta")
    assert few.to(torch.device("cpu")) is few
    moved = few.to(meta)
    assert moved.pixels.device == moved.labels.device == moved.ids.device == meta
    assert len(moved.pixels) == len(moved) == 3  # no pictures of other sets
    assert (moved.classes, moved.fingerprint) == (few.classes, few.fingerprint)


def test_too_large_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    args = {"image_size": 4096, "num_train": 1_000_000}
    with pytest.raises(DataError, match=r"1,002,000 pictures .* data\.max_gib=2"):
        load_images("shapes", args, root=None, max_gib=2, cache_dir=tmp_path)


def test_real_cifar10(real: Splits) -> None:
    train, test = real.train, real.test
    assert (len(train), len(test)) == (50_000, 10_000)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    # The published statistics are 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616; a re-encoded copy is close.
    mean, std = mean_std(train, real.sums)
    np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=0.002)
    np.testing.assert_allclose(std, (0.2470, 0.2435, 0.2616), atol=0.003)


def test_real_cifar10_is_held_out_evenly(real: Splits) -> None:
    splits = divide(real, Data())
    assert torch.bincount(splits.val.labels).tolist() == [500] * 10
    assert len(splits.train) == 45_000
    # A tenth and 5,000 are the same pictures, so checkpoints of either go on.
    assert splits.train.fingerprint == divide(real, Data(val_size=5000)).train.fingerprint


def test_a_second_load_maps_the_files(real: Splits, cifar10_root: Path) -> None:
    again = load_images("cifar10", {}, root=str(cifar10_root), max_gib=1)
    assert (again.train.fingerprint, again.sums) == (real.train.fingerprint, real.sums)
    mapped = Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else "train_images.npy"
    assert "train_images.npy" in mapped


def test_the_fingerprint_of_a_subset_tells_its_pictures_and_which_they_are() -> None:
    one = random_pictures(10)
    other = dataclasses.replace(one, fingerprint="other pictures")
    first, second = one.ids[:4], one.ids[4:8]
    found = {one.subset(first).fingerprint, one.subset(second).fingerprint, other.subset(first).fingerprint}
    assert len(found) == 3
    assert one.subset(one.ids).fingerprint == one.fingerprint
