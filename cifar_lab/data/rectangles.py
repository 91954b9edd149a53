"""Rectangles drawn per sample: random resized crops, cutout, random erasing, and the boxes of CutMix."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.data.randomness import Purpose, draw, hash64, integers, uniform
from cifar_lab.recipe.augment import Augment

Range = tuple[float, float]
ERASE_AREA = (0.02, 1 / 3)
ERASE_ASPECT = (0.3, 3.3)
ATTEMPTS = 10


def around(center: tuple[Tensor, Tensor], sides: tuple[int | Tensor, int | Tensor], size: tuple[int, int]) -> Tensor:
    """Rectangles around given pixels, clipped at the borders: int64 (N, 4) of top, bottom, left, right, ends excluded.

    All pairs are (vertical, horizontal). As in the papers' code a side is twice half of it: an odd one loses a pixel.
    """
    (top, bottom), (left, right) = (
        ((c - side // 2).clamp(min=0), (c + side // 2).clamp(max=end))
        for c, side, end in zip(center, sides, size, strict=True)
    )
    return torch.stack((top, bottom, left, right), dim=1)


def blanks(augment: Augment) -> bool:
    """Whether rectangles are set to the mean of the data, which is no byte."""
    return augment.cutout > 0 or (augment.erase_prob > 0 and augment.erase_value == "mean")


def draw_blanks(augment: Augment, size: tuple[int, int], ids: Tensor, seed: int, epoch: int) -> list[Tensor]:
    """The rectangles of cutout and of random erasing, int64 (N, 4) each, where the recipe blanks them."""
    drawn = []
    if augment.cutout:
        drawn.append(draw_cutout(ids, seed, epoch, augment.cutout, *size))
    if augment.erase_prob and augment.erase_value == "mean":
        drawn.append(draw_erasing(ids, seed, epoch, augment.erase_prob, *size))
    return drawn


def draw_cutout(ids: Tensor, seed: int, epoch: int, side: int, height: int, width: int) -> Tensor:
    """One square of `side` source pixels, 2 * (side // 2), around a uniform pixel (arXiv 1708.04552): int64 (N, 4)."""
    center_y = integers(draw(ids, seed, epoch, Purpose.CUTOUT_Y), height)
    center_x = integers(draw(ids, seed, epoch, Purpose.CUTOUT_X), width)
    return around((center_y, center_x), (side, side), (height, width))


def draw_erasing(ids: Tensor, seed: int, epoch: int, probability: float, height: int, width: int) -> Tensor:
    """Random erasing (arXiv 1708.04896) with timm's ranges, int64 (N, 4); an empty rectangle where nothing is erased.

    As in torchvision the first of ten proposals that fits is taken, and nothing is erased if none does.
    """
    box_height = torch.zeros_like(ids)
    box_width = torch.zeros_like(ids)
    open_ = uniform(draw(ids, seed, epoch, Purpose.ERASE)) < probability
    purposes = Purpose.ERASE_AREA, Purpose.ERASE_ASPECT
    for h, w in _proposals((ids, seed, epoch), purposes, ERASE_AREA, ERASE_ASPECT, height * width):
        fits = open_ & (h < height) & (w < width)
        box_height, box_width = torch.where(fits, h, box_height), torch.where(fits, w, box_width)
        open_ = open_ & ~fits
    top = integers(draw(ids, seed, epoch, Purpose.ERASE_Y), height - box_height + 1)
    left = integers(draw(ids, seed, epoch, Purpose.ERASE_X), width - box_width + 1)
    return torch.stack((top, top + box_height, left, left + box_width), dim=1)


def draw_crops(augment: Augment, size: tuple[int, int], ids: Tensor, seed: int, epoch: int) -> Tensor:
    """Boxes of torchvision's RandomResizedCrop, int64 (N, 4): the first of ten proposals that fits.

    If none does it is the middle of the picture, as much of it as `crop_ratio` allows.
    """
    assert augment.random_resized_crop is not None
    (height, width), (low, high) = size, augment.crop_ratio
    box_height = torch.full_like(ids, min(height, round(width / low)))
    box_width = torch.full_like(ids, min(width, round(height * high)))
    open_ = torch.ones_like(ids, dtype=torch.bool)
    purposes = Purpose.BOX_AREA, Purpose.BOX_RATIO
    for w, h in _proposals((ids, seed, epoch), purposes, augment.random_resized_crop, (low, high), height * width):
        fits = open_ & (h > 0) & (w > 0) & (h <= height) & (w <= width)
        box_height, box_width = torch.where(fits, h, box_height), torch.where(fits, w, box_width)
        open_ = open_ & ~fits
    top, left = (
        torch.where(open_, room // 2, integers(draw(ids, seed, epoch, purpose), room + 1))
        for room, purpose in ((height - box_height, Purpose.CROP_Y), (width - box_width, Purpose.CROP_X))
    )
    return torch.stack((top, top + box_height, left, left + box_width), dim=1)


def _proposals(
    key: tuple[Tensor, int, int], purposes: tuple[Purpose, ...], area: Range, aspect: Range, pixels: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sides of boxes, int64 (N,) each: uniform areas, as parts of `pixels`, and log-uniform quotients of the sides."""
    ends = torch.tensor((area, (math.log(aspect[0]), math.log(aspect[1]))), dtype=torch.float64)
    for attempt in range(ATTEMPTS):
        at = torch.stack([uniform(draw(*key, purpose, attempt)) for purpose in purposes])
        share, log_aspect = torch.lerp(ends[:, :1], ends[:, 1:], at)
        share, quotient = share * pixels, log_aspect.exp()
        yield (share * quotient).sqrt().round().long(), (share / quotient).sqrt().round().long()


@dataclass(frozen=True)
class NoiseDraws:
    """Rectangles of random erasing that get random bytes.

    `rectangles` int64 (N, 4) and `keys` int64 (N,), hashes of the pictures; on the host `before`, N + 1 numbers: how
    many pixels the rectangles of all earlier positions have.
    """

    rectangles: Tensor
    keys: Tensor
    before: list[int]


def draw_noise(augment: Augment, size: tuple[int, int], ids: Tensor, seed: int, epoch: int) -> NoiseDraws | None:
    """What `fill_noise_` needs for `ids` (N,) in the order of the epoch, where the recipe asks for it; on the host."""
    if not (augment.erase_prob and augment.erase_value == "random"):
        return None
    rectangles = draw_erasing(ids, seed, epoch, augment.erase_prob, *size)
    before = [0, *_areas(rectangles).cumsum(0).tolist()]
    return NoiseDraws(rectangles, draw(ids, seed, epoch, Purpose.ERASE_VALUE), before)


def fill_noise_(x: Tensor, draws: NoiseDraws, start: int, stop: int) -> None:
    """Random bytes, uniform in 0..255 (arXiv 1708.04896), in place on uint8 (n, 3, H, W), the positions [start, stop).

    They are hashes of the picture's key and the pixel, and made inside of the rectangles only.
    """
    total = draws.before[stop] - draws.before[start]
    rectangles = draws.rectangles[start:stop]
    area = _areas(rectangles)
    picture = torch.repeat_interleave(area, output_size=total)  # its size is known here: nothing waits for the device
    top, _, left, right = rectangles.index_select(0, picture).unbind(1)
    within = torch.arange(total, device=x.device) - (area.cumsum(0) - area).index_select(0, picture)
    ys, xs = top + within // (right - left), left + within % (right - left)
    pixel = hash64(ids=draws.keys[start:stop].index_select(0, picture) + ys * x.shape[-1] + xs)
    channels = torch.arange(40, 64, 8, device=x.device)
    x[picture, :, ys, xs] = (pixel.unsqueeze(1) >> channels).bitwise_and_(0xFF).to(torch.uint8)


def _areas(rectangles: Tensor) -> Tensor:
    top, bottom, left, right = rectangles.unbind(1)
    return (bottom - top) * (right - left)


def inside(rectangles: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """bool (N, height) and (N, width): the rows and the columns of each rectangle (N, 4), by comparing coordinates.

    Its mask is their product: nothing waits for the device.
    """
    top, bottom, left, right = rectangles.unsqueeze(-1).unbind(1)
    ys, xs = (torch.arange(side, device=rectangles.device) for side in (height, width))
    return (ys >= top) & (ys < bottom), (xs >= left) & (xs < right)


def mask_sides(rectangles: Tensor, size: tuple[int, int], amplitude: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """float32 (N, 1, H, 1) and (N, 1, 1, W) for rectangles (N, 4): their product is `amplitude` (N,), by default 1,
    inside and 0 outside."""
    rows, columns = (side.float() for side in inside(rectangles, *size))
    if amplitude is not None:
        rows = rows * amplitude.unsqueeze(1)
    return rows[:, None, :, None], columns[:, None, None, :]
