"""Mean and standard deviation are exactly those of the pictures that are trained on."""

from __future__ import annotations

import io
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.small import small

from cifar_lab.data import statistics
from cifar_lab.data.cache import SplitMeta, decode_split
from cifar_lab.data.images import ImageSet
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.raw import DataError, RawSplit
from cifar_lab.data.statistics import class_weights, mean_std
from cifar_lab.data.stream import Stream
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.augment import Augment


def decoded(pictures: np.ndarray) -> tuple[ImageSet, SplitMeta]:
    """uint8 (n, h, w, 3) as a whole split."""
    labels = np.arange(len(pictures)) % 2
    meta = decode_split(RawSplit(pictures, labels, ("a", "b")), io.BytesIO())
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    return ImageSet(pixels, torch.from_numpy(labels), torch.arange(len(pictures)), ("a", "b"), "x"), meta


@pytest.fixture(scope="module")
def split() -> tuple[ImageSet, SplitMeta]:
    """Dark pictures first, bright ones last, so that any other set of them has another mean."""
    noise = np.random.default_rng(0).integers(0, 60, (60, 8, 12, 3))
    return decoded((noise + 3 * np.arange(60)[:, None, None, None]).astype(np.uint8))


@pytest.mark.parametrize("size", [1, 29, 30, 31, 55, 60])
def test_they_are_those_of_the_subset(split: tuple[ImageSet, SplitMeta], size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "_CHUNK_BYTES", 7 * 3 * 8 * 12)  # chunks that do not come out even
    whole, meta = split
    subset = whole.subset(torch.randperm(60, generator=torch.Generator().manual_seed(size))[:size].sort().values)
    scaled = subset.images.numpy().astype(np.float64) / 255
    mean, std = mean_std(subset, meta)
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-10)


def test_what_is_left_out_does_not_count(split: tuple[ImageSet, SplitMeta]) -> None:
    pictures = split[0].pixels.permute(0, 2, 3, 1).numpy().copy()
    pictures[::10] = 255
    others, meta = decoded(pictures)
    ids = torch.tensor([i for i in range(60) if i % 10])
    assert mean_std(others.subset(ids), meta) == mean_std(split[0].subset(ids), split[1])
    assert mean_std(others, meta) != mean_std(*split)


def test_a_channel_with_one_value_names_the_way_out(split: tuple[ImageSet, SplitMeta]) -> None:
    pictures = split[0].pixels.permute(0, 2, 3, 1).numpy().copy()
    pictures[..., 1] = 7
    with pytest.raises(DataError, match=r"channel 1 has one value in all training pictures.*give data.mean"):
        mean_std(*decoded(pictures))


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    images = decoded(np.zeros((12, 4, 4, 3), np.uint8))[0]
    labels = torch.tensor([0] * 6 + [1] * 4 + [3] * 2)  # none of the third of four classes
    uneven = replace(images, labels=labels, classes=("a", "b", "c", "d"))
    weights = class_weights("balanced", uneven)
    assert weights.tolist() == pytest.approx([12 / (3 * 6), 12 / (3 * 4), 0, 12 / (3 * 2)])
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert class_weights((1.0, 2.0, 3.0, 4.0), uneven).tolist() == [1, 2, 3, 4]
    assert class_weights(None, uneven) is None
    with pytest.raises(DataError, match=r"train\.class_weights has 2 numbers, but there are 4 classes"):
        class_weights((1.0, 2.0), uneven)


def test_with_numbers_given_it_is_trained_on_and_said(caplog: pytest.LogCaptureFixture) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    pictures[..., 1] = 7
    images, meta = decoded(pictures)
    recipe = parse_recipe(small(data__mean=[0.5], data__std=[0.25]))
    with caplog.at_level(logging.INFO, "cifar_lab"):
        preparation = Preparation.from_recipe(recipe, images, meta)
    assert (preparation.mean, preparation.std) == ((0.5,) * 3, (0.25,) * 3)
    assert [r.getMessage() for r in caplog.records] == [
        "channel 1 has one value in all training pictures: a model learns nothing from it"
    ]
    stream = Stream(images, preparation, Augment(), seed=0, global_batch=4, micro_batch=4, device=torch.device("cpu"))
    fed = stream.micro_batch(0, 0).images
    assert torch.isfinite(fed).all()
    assert torch.equal(fed[:, 1], torch.full_like(fed[:, 1], float(fed[0, 1, 0, 0])))


def test_of_other_pictures_nothing_is_said(split: tuple[ImageSet, SplitMeta], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cifar_lab"):
        Preparation.from_recipe(parse_recipe(small(data__mean=[0.5], data__std=[0.25])), *split)
    assert not caplog.records
