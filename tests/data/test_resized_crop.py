"""Random resized crops against torchvision's, and their draws against its rules."""

from __future__ import annotations

import math

import pytest
import torch
from support.pictures import make_stream, random_pictures, whole_batch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as TF

from cifar_lab.data.rectangles import draw_crops
from cifar_lab.data.resized_crop import ResizedCrop
from cifar_lab.recipe.augment import Augment

SCALE = (0.08, 1.0)
BOXES = [(0, 32, 0, 32), (3, 4, 7, 9), (0, 9, 20, 32), (11, 32, 0, 17), (5, 25, 6, 26), (0, 32, 30, 32)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("target", [32, 12, 71])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 45)])
def test_boxes_are_resized_as_torchvision_does(interpolation: str, target: int, height: int, width: int) -> None:
    images = random_pictures(len(BOXES), height, width).images
    images[1] = torch.randint(0, 2, images[1].shape, generator=torch.Generator().manual_seed(0)) * 255  # overshoots
    crop = ResizedCrop(images, Augment(random_resized_crop=SCALE), target, interpolation)
    for mirrored in (0, 1):
        draws = torch.arange(len(BOXES)), torch.tensor(BOXES), torch.full((len(BOXES),), mirrored)
        ours = crop(draws, 0, len(BOXES))
        for image, result, (top, bottom, left, right) in zip(images, ours, BOXES, strict=True):
            mode = InterpolationMode(interpolation)
            box = (top, left, bottom - top, right - left)
            expected = TF.resized_crop(image, *box, [target, target], interpolation=mode, antialias=True)
            difference = (result.int() - (expected.flip(-1) if mirrored else expected).int()).abs()
            # Both round to bytes twice, and its weights have a bit less: they part where a sum is close to a half.
            assert difference.max() <= 2, box
            assert (difference > 0).float().mean() < 0.04, box
            assert (difference > 1).float().mean() < 0.001, box


def test_large_pictures_are_made_small_as_torchvision_does() -> None:
    image = random_pictures(1, 500, 333).images
    crop = ResizedCrop(image, Augment(random_resized_crop=SCALE), 24, "bicubic")
    for top, bottom, left, right in [(0, 500, 0, 333), (7, 431, 19, 300)]:
        draws = torch.tensor([0]), torch.tensor([[top, bottom, left, right]]), torch.tensor([0])
        mode = InterpolationMode.BICUBIC
        box = (top, left, bottom - top, right - left)
        expected = TF.resized_crop(image, *box, [24, 24], interpolation=mode, antialias=True)
        assert (crop(draws, 0, 1).int() - expected.int()).abs().max() <= 1


def test_a_picture_has_the_same_bytes_in_any_company() -> None:
    images = random_pictures(50, 40, 29).images
    crop = ResizedCrop(images, Augment(random_resized_crop=SCALE, flip=True), 31, "bicubic")
    draws = crop.draw(torch.arange(50), torch.arange(50), 0, 0)
    together = crop(draws, 0, 50)
    assert all(torch.equal(crop(draws, i, i + 1)[0], together[i]) for i in range(50))


@pytest.mark.parametrize("size", [(32, 32), (24, 60)])
@pytest.mark.parametrize(
    ("scale", "ratio"), [(SCALE, (3 / 4, 4 / 3)), ((0.4, 0.5), (0.3, 2.0)), ((1.0, 1.0), (1.0, 1.0))]
)
def test_boxes_are_drawn_by_torchvisions_rules(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    count = 20000
    augment = Augment(random_resized_crop=scale, crop_ratio=ratio)
    top, bottom, left, right = draw_crops(augment, size, torch.arange(count), 0, 0).double().unbind(1)
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count // 4)])
    their_top, their_left, height, width = theirs.double().unbind(1)
    for ours, other in (
        ((bottom - top) * (right - left), height * width),
        (((right - left) / (bottom - top)).log(), (width / height).log()),
        (top, their_top),
        (left, their_left),
    ):
        places = torch.cat((ours, other)).unique()
        below = [torch.searchsorted(values.sort().values, places + 1e-9) / len(values) for values in (ours, other)]
        assert (below[0] - below[1]).abs().max() < 1.95 * math.sqrt(5 / count)  # Kolmogorov-Smirnov, 0.1 %


def test_what_never_fits_becomes_the_middle() -> None:
    for size, ratio, box in (
        ((20, 30), (4.0, 5.0), (6, 14, 0, 30)),  # 30 / 4 rounds to 8
        ((20, 30), (0.2, 0.25), (0, 20, 12, 17)),
        ((20, 30), (1.0, 2.0), (0, 20, 0, 30)),
    ):
        augment = Augment(random_resized_crop=(1.0, 1.0), crop_ratio=ratio)
        drawn = draw_crops(augment, size, torch.arange(40), 0, 0)
        found = {tuple(row) for row in drawn.tolist()}
        top, left, height, width = RandomResizedCrop.get_params(torch.empty(3, *size), [1.0, 1.0], list(ratio))
        assert (top, top + height, left, left + width) == box
        assert box in found


def test_the_stream_feeds_boxes_at_the_models_size() -> None:
    data = random_pictures(24, 40, 28)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1), "global_batch": 24, "micro_batch": 8}
    stream = make_stream(data, {"random_resized_crop": SCALE}, image_size=20, **plain)
    images, _, ids, _ = whole_batch(stream, 0)
    boxes = draw_crops(Augment(random_resized_crop=SCALE), (40, 28), ids, 0, 0)
    assert len({tuple(box) for box in boxes.tolist()}) > 20
    for image, i, (top, bottom, left, right) in zip(images, ids.tolist(), boxes.tolist(), strict=True):
        box = (top, left, bottom - top, right - left)
        mode = InterpolationMode.BICUBIC
        expected = TF.resized_crop(data.images[(i - 5) // 3], *box, [20, 20], interpolation=mode, antialias=True)
        assert (255 * image - expected).abs().max() < 1.001
    assert not torch.equal(whole_batch(stream, 1)[0][ids.argsort()], images[ids.argsort()])


@pytest.mark.parametrize("wrong", [{"random_resized_crop": (0.8, 0.2)}, {"crop_ratio": (2.0, 1.0)}])
def test_a_range_the_wrong_way_round_is_refused(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="give the smaller end first"):
        Augment(**wrong)
