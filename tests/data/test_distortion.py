"""Vertical flip, rotation and colour jitter against torchvision's functions, and their draws against its ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.pictures import make_stream, random_pictures, whole_batch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from cifar_lab.data.distortion import Draws, distort_, draw_distortion
from cifar_lab.recipe.augment import Augment

IDS = torch.arange(20000)
NONE = ((), (), (), ())


def distorted(x: Tensor, draws: Draws) -> Tensor:
    return distort_(x.clone(), draws, 0, len(x))


@pytest.mark.parametrize("size", [(32, 32), (20, 28)])
def test_rotation_is_torchvisions(size: tuple[int, int]) -> None:
    x = random_pictures(1, *size).images
    angles = [-180, -90, -33.3, -7, 0, 1e-3, 12.5, 45, 90, 137.2]
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    draws = ((), (radians.cos().float(), radians.sin().float()), *NONE)
    ours = distorted(x.repeat(len(angles), 1, 1, 1), draws)
    for angle, picture in zip(angles, ours, strict=True):
        expected = TF.rotate(x[0], angle, interpolation=InterpolationMode.NEAREST)
        # A point half-way between two pixels goes to either, by the last bit of its place.
        assert (picture != expected).any(dim=0).float().mean() < 0.01, angle
    assert torch.equal(ours[4], x[0])


COLORS = [
    ("brightness", TF.adjust_brightness, [0.0, 0.3, 1.0, 1.7]),
    ("contrast", TF.adjust_contrast, [0.0, 0.3, 1.0, 1.7]),
    ("saturation", TF.adjust_saturation, [0.0, 0.3, 1.0, 1.7]),
    ("hue", TF.adjust_hue, [-0.5, -0.21, 0.0, 0.1, 0.5]),
]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("size", [(32, 32), (300, 301)])
def test_colors_are_torchvisions(index: int, size: tuple[int, int]) -> None:
    _, function, values = COLORS[index]
    x = random_pictures(1, *size).images
    x[0, :, :3] = 77  # grey, whose hue is none
    x[0, :, 3:5] = torch.randint(0, 2, x[0, :, 3:5].shape, generator=torch.Generator().manual_seed(0)) * 255
    factor = torch.tensor(values, dtype=torch.float64)
    taken = (factor.float(),) if index == 3 else (factor.float(), (1 - factor).float())
    colors = (*NONE[:index], taken, *NONE[index + 1 :])
    ours = distorted(x.repeat(len(values), 1, 1, 1), ((), (), *colors))
    for value, picture in zip(values, ours, strict=True):
        difference = (picture.int() - function(x[0], value).int()).abs()
        assert difference.max() <= 1, value
        assert (difference > 0).float().mean() < 0.02, value
    if index != 1:  # blends and shifts by nothing
        assert torch.equal(ours[2], x[0])


def test_everything_in_its_order() -> None:
    x = random_pictures(3).images
    angle = math.radians(30)
    turn = torch.tensor([angle] * 3).cos(), torch.tensor([angle] * 3).sin()
    blends = [(torch.full((3,), f), torch.full((3,), 1 - f)) for f in (0.7, 1.4, 0.4)]
    draws = ((torch.tensor([1.0, 0.0, 1.0]),), turn, *blends, (torch.full((3,), 0.2),))
    for i, picture in enumerate(distorted(x, draws)):
        expected = x[i] if i == 1 else TF.vertical_flip(x[i])
        expected = TF.rotate(expected, 30, interpolation=InterpolationMode.NEAREST)
        for (_, function, _), value in zip(COLORS, (0.7, 1.4, 0.4, 0.2), strict=True):
            expected = function(expected, value)
        difference = (picture.int() - expected.int()).abs().amax(dim=0)
        assert (difference > 4).float().mean() < 0.01  # where a rotation took the other neighbour


def drawn(**augment: float) -> Draws:
    return draw_distortion(Augment(**augment), IDS, 0, 0)


def assert_uniform(values: Tensor, low: float, high: float) -> None:
    expected = low + (high - low) * torch.linspace(0, 1, 21)
    assert (values.quantile(torch.linspace(0, 1, 21)) - expected).abs().max() < 0.02 * (high - low)
    assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6


def test_draws_are_uniform_in_torchvisions_ranges() -> None:
    assert not any(drawn(crop_padding=4))
    (flipped,), *_ = drawn(vertical_flip=True)
    assert set(flipped.tolist()) == {0, 1} and abs(flipped.mean() - 0.5) < 0.015
    turn = drawn(rotation=40)[1]
    assert_uniform(torch.atan2(turn[1], turn[0]).rad2deg(), -40, 40)
    colors = drawn(brightness=0.4, contrast=0.1, saturation=2.5, hue=0.1)[2:]
    for factors, (low, high) in zip(colors, [(0.6, 1.4), (0.9, 1.1), (0, 3.5), (-0.1, 0.1)], strict=True):
        assert_uniform(factors[0], low, high)
    firsts = torch.stack([factors[0] for factors in colors])
    assert torch.corrcoef(firsts).fill_diagonal_(0).abs().max() < 0.03
    # What is drawn for one does not depend on what else is on.
    assert torch.equal(drawn(contrast=0.1)[3][0], colors[1][0])


@pytest.mark.parametrize(
    "augment",
    [
        {"vertical_flip": True},
        {"rotation": 30},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.9},
        {"hue": 0.3},
    ],
    ids=lambda augment: next(iter(augment)),
)
@pytest.mark.parametrize("crop", [{}, {"crop_padding": 4, "flip": True}, {"random_resized_crop": (0.3, 1.0)}])
def test_each_reaches_the_pictures_anew_each_epoch(augment: dict[str, Any], crop: dict[str, Any]) -> None:
    data = random_pictures(24)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1), "global_batch": 24, "micro_batch": 8}
    without, _, ids, _ = whole_batch(make_stream(data, crop, **plain), 0)
    stream = make_stream(data, crop | augment, **plain)
    expected = distorted((255 * without).round().to(torch.uint8), draw_distortion(Augment(**augment), ids, 0, 0))
    images, _, same, _ = whole_batch(stream, 0)
    assert torch.equal(same, ids)
    assert torch.equal((255 * images).round().to(torch.uint8), expected)
    changed = (images != without).flatten(1).any(dim=1)
    assert changed.sum() > 5
