"""RandAugment (arXiv 1909.13719) on uint8 batches: torchvision's 14 operations, each run once on all its pictures.

The magnitude is on timm's scale, 0 to 10: 9 turns by 27 degrees (torchvision's 9, of 0 to 30, by 9). As in timm an
operation may be left out at random, and its magnitude vary; the operations are torchvision's all the same: unlike
timm's they have Identity and neither Invert nor SolarizeAdd, take the nearest pixel and fill with black.

The draws are made for an epoch at once, on the host; pictures are grouped by kernel through index lists made there,
so nothing waits for the device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist, pstdev

import numpy as np
import torch
from torch import Tensor

from cifar_lab.data import operations
from cifar_lab.data.randomness import Purpose, draw, integers, uniform
from cifar_lab.recipe.augment import Augment

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS = (*GEOMETRIC, *ENHANCE, "Posterize", "Solarize", "AutoContrast", "Equalize", "Identity")
# The geometric operations share one kernel; "Identity", the last group, needs none.
_GROUP = torch.tensor([max(0, i - len(GEOMETRIC) + 1) for i in range(len(OPERATIONS))])
_NUM_GROUPS = len(OPERATIONS) - len(GEOMETRIC) + 1
_IDENTITY = OPERATIONS.index("Identity")
NUM_LEVELS = 32


@dataclass(frozen=True)
class RandAugmentDraws:
    """Draws of an epoch, one entry a round: the pictures of each micro-batch grouped by kernel.

    Tensors, int64 (N,): `grouped`, places inside of the micro-batch by group, `back`, the inverse permutation,
    and `variant`, (2 * operation + sign) * number of levels + level, by group. Lists: `counts` (micro-batches,
    groups), pictures a group.
    """

    grouped: tuple[Tensor, ...]
    back: tuple[Tensor, ...]
    variant: tuple[Tensor, ...]
    counts: tuple[list[list[int]], ...]


def levels(augment: Augment) -> list[float]:
    """The parts of the largest magnitude, 0 to 1, that a picture draws from; one, or 32 equally likely ones.

    These have a normal's shape and the recipe's mean and deviation, and are then clipped to the scale, as in timm.
    """
    mean, std = augment.randaugment_magnitude, augment.randaugment_std
    if not std:
        return [mean / 10]
    normal = [NormalDist().inv_cdf((i + 0.5) / NUM_LEVELS) for i in range(NUM_LEVELS)]
    return [min(max(mean + std * value / pstdev(normal), 0.0), 10.0) / 10 for value in normal]


class RandAugment:
    """Uniformly drawn operations on each picture, each done with a probability, at one of `levels`."""

    def __init__(self, augment: Augment, size: tuple[int, int], *, micro_batch: int, device: torch.device) -> None:
        self.num_ops, self.prob = augment.randaugment_ops, augment.randaugment_prob
        self.micro_batch, self.device = micro_batch, device
        parts = levels(augment)
        self.num_levels = len(parts)
        maps = zip(*(operations.index_maps(level, *size) for level in parts), strict=True)
        self._source, self._inside = (torch.stack(kind, dim=1).flatten(0, 1).to(device) for kind in maps)
        self._grouped = torch.empty((micro_batch, 3, *size), dtype=torch.uint8, device=device)
        # Each table has the levels of the positive sign and then those of the negative one.
        own = torch.tensor([1 + sign * 0.9 * level for sign in (1, -1) for level in parts], dtype=torch.float64)
        factors = own.float(), (1 - own).float()
        masks = torch.tensor([0xFF >> dropped << dropped for dropped in (round(4 * level) for level in 2 * parts)])
        thresholds = torch.tensor([math.ceil(255 * (1 - level)) for level in 2 * parts])
        self._kernels: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
            self._geometric,
            self._by_level(operations.adjust_brightness, *factors),
            self._by_level(operations.adjust_saturation, *factors),
            self._by_level(operations.adjust_contrast, *factors),
            self._by_level(operations.adjust_sharpness, *factors),
            self._by_level(operations.posterize, masks.to(torch.uint8)),
            self._by_level(operations.solarize, thresholds.to(torch.int16)),
            self._by_level(operations.autocontrast),
            self._by_level(operations.equalize),
        )

    def draw(self, ids: Tensor, seed: int, epoch: int) -> RandAugmentDraws:
        """Draws for `ids` (N,) in the order of the epoch, N a multiple of the micro-batch, on the host."""
        grouped, back, variant, counts = [], [], [], []
        place = torch.arange(len(ids))
        batch = place // self.micro_batch
        for index in range(self.num_ops):
            op = integers(draw(ids, seed, epoch, Purpose.RANDAUGMENT_OP, index), len(OPERATIONS))
            applied = uniform(draw(ids, seed, epoch, Purpose.RANDAUGMENT_APPLY, index)) < self.prob
            op = torch.where(applied, op, _IDENTITY)
            sign = integers(draw(ids, seed, epoch, Purpose.RANDAUGMENT_SIGN, index), 2)
            level = integers(draw(ids, seed, epoch, Purpose.RANDAUGMENT_LEVEL, index), self.num_levels)
            key = batch * _NUM_GROUPS + _GROUP[op]
            order = torch.argsort(key, stable=True)
            inverse = torch.empty_like(order)
            inverse[order] = place
            grouped.append(order % self.micro_batch)
            back.append(inverse % self.micro_batch)
            variant.append(((2 * op + sign) * self.num_levels + level)[order])
            num_batches = len(ids) // self.micro_batch
            table = np.bincount(key.numpy(), minlength=num_batches * _NUM_GROUPS).reshape(num_batches, _NUM_GROUPS)
            counts.append(table.tolist())
        return RandAugmentDraws(tuple(grouped), tuple(back), tuple(variant), tuple(counts))

    def __call__(self, images: Tensor, draws: RandAugmentDraws, batch: int) -> None:
        """Change uint8 (micro_batch, 3, H, W) in place by the draws of micro-batch number `batch` of the epoch."""
        own = slice(batch * self.micro_batch, (batch + 1) * self.micro_batch)
        rounds = zip(draws.grouped, draws.back, draws.variant, draws.counts, strict=True)
        for grouped, back, variant, counts in rounds:
            # Two gathers of whole pictures around all groups; an `index_copy_` a group takes 4x as long.
            torch.index_select(images, 0, grouped[own], out=self._grouped)
            start = 0
            for kernel, count in zip(self._kernels, counts[batch], strict=False):
                group = self._grouped[start : start + count]
                if count:
                    group.copy_(kernel(group, variant[own][start : start + count]))
                start += count
            torch.index_select(self._grouped, 0, back[own], out=images)

    def _geometric(self, x: Tensor, variant: Tensor) -> Tensor:
        return operations.sample_nearest(
            x, self._source.index_select(0, variant), self._inside.index_select(0, variant)
        )

    def _by_level(self, kernel: Callable[..., Tensor], *tables: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        on_device = [table.to(self.device) for table in tables]

        def run(x: Tensor, variant: Tensor) -> Tensor:
            place = variant % (2 * self.num_levels)
            return kernel(x, *(table.index_select(0, place).view(-1, 1, 1, 1) for table in on_device))

        return run
