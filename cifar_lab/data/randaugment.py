"""RandAugment (arXiv 1909.13719) on uint8 batches: torchvision's 14 operations, each run once on all its pictures.

The draws are made for an epoch at once, on the host; pictures are grouped by kernel through index lists made there,
so nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cifar_lab.data import operations
from cifar_lab.data.randomness import Purpose, draw, integers
from cifar_lab.recipe.schema import Augment

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS = (*GEOMETRIC, *ENHANCE, "Posterize", "Solarize", "AutoContrast", "Equalize", "Identity")
# The geometric operations share one kernel; "Identity", the last group, needs none.
_GROUP = torch.tensor([max(0, i - len(GEOMETRIC) + 1) for i in range(len(OPERATIONS))])
_NUM_GROUPS = len(OPERATIONS) - len(GEOMETRIC) + 1


@dataclass(frozen=True)
class RandAugmentDraws:
    """Draws of an epoch, one entry a round: the pictures of each micro-batch grouped by kernel.

    On the device, int64 (N,): `grouped`, places inside of the micro-batch by group, `back`, the inverse permutation,
    and `signed_op`, 2 * operation + sign, by group. On the host: `counts` (micro-batches, groups), pictures a group.
    """

    grouped: tuple[Tensor, ...]
    back: tuple[Tensor, ...]
    signed_op: tuple[Tensor, ...]
    counts: tuple[list[list[int]], ...]


class RandAugment:
    """Uniformly drawn operations on each picture, all at one magnitude (0 to 10, linear as in torchvision)."""

    def __init__(self, augment: Augment, size: tuple[int, int], *, micro_batch: int, device: torch.device) -> None:
        self.num_ops, self.micro_batch, self.device = augment.randaugment_ops, micro_batch, device
        level = augment.randaugment_magnitude / 10
        self._source, self._inside = (t.to(device) for t in operations.index_maps(level, *size))
        self._grouped = torch.empty((micro_batch, 3, *size), dtype=torch.uint8, device=device)
        factors = torch.tensor([1 + 0.9 * level, 1 - 0.9 * level], dtype=torch.float64)
        self._own = factors.float().to(device)
        self._other = (1 - factors).float().to(device)
        bits = 8 - round(4 * level)
        threshold = 255 * (1 - level)
        self._kernels: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
            self._geometric,
            self._enhance(operations.adjust_brightness),
            self._enhance(operations.adjust_saturation),
            self._enhance(operations.adjust_contrast),
            self._enhance(operations.adjust_sharpness),
            lambda x, _: operations.posterize(x, bits),
            lambda x, _: operations.solarize(x, threshold),
            lambda x, _: operations.autocontrast(x),
            lambda x, _: operations.equalize(x),
        )

    def draw(self, ids: Tensor, seed: int, epoch: int) -> RandAugmentDraws:
        """Draws for `ids` (N,) in the order of the epoch, N a multiple of the micro-batch, on the host."""
        grouped, back, signed_op, counts = [], [], [], []
        place = torch.arange(len(ids))
        batch = place // self.micro_batch
        for index in range(self.num_ops):
            op = integers(draw(ids, seed, epoch, Purpose.RANDAUGMENT_OP, index), len(OPERATIONS))
            sign = integers(draw(ids, seed, epoch, Purpose.RANDAUGMENT_SIGN, index), 2)
            key = batch * _NUM_GROUPS + _GROUP[op]
            order = torch.argsort(key, stable=True)
            inverse = torch.empty_like(order)
            inverse[order] = place
            grouped.append((order % self.micro_batch).to(self.device, non_blocking=True))
            back.append((inverse % self.micro_batch).to(self.device, non_blocking=True))
            signed_op.append((2 * op + sign)[order].to(self.device, non_blocking=True))
            num_batches = len(ids) // self.micro_batch
            table = np.bincount(key.numpy(), minlength=num_batches * _NUM_GROUPS).reshape(num_batches, _NUM_GROUPS)
            counts.append(table.tolist())
        return RandAugmentDraws(tuple(grouped), tuple(back), tuple(signed_op), tuple(counts))

    def __call__(self, images: Tensor, draws: RandAugmentDraws, batch: int) -> None:
        """Change uint8 (micro_batch, 3, H, W) in place by the draws of micro-batch number `batch` of the epoch."""
        own = slice(batch * self.micro_batch, (batch + 1) * self.micro_batch)
        rounds = zip(draws.grouped, draws.back, draws.signed_op, draws.counts, strict=True)
        for grouped, back, signed_op, counts in rounds:
            # Two gathers of whole pictures around all groups; an `index_copy_` a group takes 4x as long.
            torch.index_select(images, 0, grouped[own], out=self._grouped)
            start = 0
            for kernel, count in zip(self._kernels, counts[batch], strict=False):
                group = self._grouped[start : start + count]
                if count:
                    group.copy_(kernel(group, signed_op[own][start : start + count]))
                start += count
            torch.index_select(self._grouped, 0, back[own], out=images)

    def _geometric(self, x: Tensor, signed_op: Tensor) -> Tensor:
        return operations.sample_nearest(
            x, self._source.index_select(0, signed_op), self._inside.index_select(0, signed_op)
        )

    def _enhance(self, kernel: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def run(x: Tensor, signed_op: Tensor) -> Tensor:
            sign = signed_op & 1
            own, other = (factor.index_select(0, sign).view(-1, 1, 1, 1) for factor in (self._own, self._other))
            return kernel(x, own, other)

        return run
