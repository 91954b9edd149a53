"""What is drawn for a picture never changes between versions: published runs were trained on these."""

from __future__ import annotations

import pytest
import torch
from support.pictures import random_pictures

from cifar_lab.data.augment import CropFlip
from cifar_lab.data.distortion import draw_distortion
from cifar_lab.data.mixing import draw_pairs
from cifar_lab.data.randaugment import RandAugment
from cifar_lab.data.rectangles import draw_crops, draw_cutout, draw_erasing
from cifar_lab.recipe.augment import Augment

IDS = 3 * torch.arange(400) + 5
SEED, EPOCH = 1, 2
SIZE = (24, 32)
WEIGHT = torch.arange(400) % 7 + 1


def digest(drawn: torch.Tensor) -> list[int]:
    """Of draws (400, k), k numbers in which the order counts."""
    return (drawn.view(400, -1).T * WEIGHT).sum(1).tolist()


def test_crops_and_flips() -> None:
    crop = CropFlip(random_pictures(4, *SIZE).images, Augment(crop_padding=4, flip=True), micro_batch=400, chunk=400)
    draws = crop.draw(torch.arange(400) % 4, IDS, SEED, EPOCH)
    assert digest(draws.starts) == [1270853013]
    assert draws.num_plain == [205]


def test_rectangles() -> None:
    assert digest(draw_cutout(IDS, SEED, EPOCH, 8, *SIZE)) == [13524, 25297, 17233, 29212]
    assert digest(draw_erasing(IDS, SEED, EPOCH, 0.75, *SIZE)) == [11655, 25997, 17916, 32950]
    boxed = Augment(random_resized_crop=(0.2, 1.0))
    assert digest(draw_crops(boxed, SIZE, IDS, SEED, EPOCH)) == [3857, 34404, 10014, 41649]


def test_distortion() -> None:
    recipe = Augment(vertical_flip=True, rotation=30, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    draws = draw_distortion(recipe, IDS, SEED, EPOCH)
    assert digest(draws[0][0].long()) == [768]
    first = [draws[1][1], *(parts[0] for parts in draws[2:])]
    assert [float((values * WEIGHT).sum()) for values in first] == pytest.approx(
        [39.08119, 1621.86926, 1596.81824, 1608.8894, 0.68657], rel=1e-5
    )


def test_pairs() -> None:
    draws = draw_pairs(Augment(mixup_alpha=0.4, cutmix_alpha=1.0), SIZE, IDS, SEED, EPOCH)
    assert digest(draws.boxes) == [4258, 33493, 5059, 44664]
    assert float((draws.own_weight * WEIGHT).sum()) == pytest.approx(926.4332, rel=1e-6)
    assert float((draws.partner_weight * WEIGHT).sum()) == pytest.approx(1217.7307, rel=1e-6)


def test_randaugment() -> None:
    recipe = Augment(randaugment_ops=2, randaugment_prob=0.75, randaugment_std=0.5)
    draws = RandAugment(recipe, SIZE, micro_batch=400, device=torch.device("cpu")).draw(IDS, SEED, EPOCH)
    variants = [variant[back] for variant, back in zip(draws.variant, draws.back, strict=True)]
    assert [digest(variant) for variant in variants] == [[856407], [862348]]
