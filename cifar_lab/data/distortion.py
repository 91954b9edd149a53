"""Vertical flip, rotation and colour jitter of uint8 chunks; torchvision's, but for the order of the colours."""

import math
from collections.abc import Callable

from torch import Tensor

from cifar_lab.data import operations
from cifar_lab.data.randomness import Purpose, draw, integers, uniform
from cifar_lab.recipe.augment import Augment

CHANGES: tuple[Callable[..., Tensor], ...] = (
    operations.flip_rows,
    operations.rotate,
    operations.adjust_brightness,
    operations.adjust_contrast,
    operations.adjust_saturation,
    operations.adjust_hue,
)
Draws = tuple[tuple[Tensor, ...], ...]  # what each of CHANGES takes, float32 (N,); empty where the recipe has it off


def draw_distortion(augment: Augment, ids: Tensor, seed: int, epoch: int) -> Draws:
    """Draws for the samples `ids` (N,) of an epoch, on the host."""

    def between(low: float, high: float, purpose: Purpose, index: int = 0) -> Tensor:
        return low + (high - low) * uniform(draw(ids, seed, epoch, purpose, index))

    flipped = integers(draw(ids, seed, epoch, Purpose.VERTICAL_FLIP), 2)
    largest, hue = math.radians(augment.rotation), augment.hue
    angle = between(-largest, largest, Purpose.ROTATION)
    drawn: list[tuple[Tensor, ...]] = [(flipped,) * augment.vertical_flip]
    drawn.append((angle.cos(), angle.sin()) if largest else ())
    for index, amount in enumerate((augment.brightness, augment.contrast, augment.saturation)):
        own = between(max(0.0, 1 - amount), 1 + amount, Purpose.COLOR, index)
        drawn.append((own, 1 - own) if amount else ())
    drawn.append((between(-hue, hue, Purpose.COLOR, 3),) if hue else ())
    return tuple(tuple(part.float() for part in parts) for parts in drawn)


def distort_(pictures: Tensor, draws: Draws, start: int, stop: int) -> Tensor:
    """In place on uint8 (n, 3, H, W), the pictures of the epoch's positions [start, stop)."""
    x = pictures
    for change, parts in zip(CHANGES, draws, strict=True):
        if parts:
            x = change(x, *(part[start:stop].view(-1, 1, 1, 1) for part in parts))
    return pictures if x is pictures else pictures.copy_(x)
