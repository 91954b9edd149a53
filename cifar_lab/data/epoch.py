"""All draws of one epoch, made at once on the host and uploaded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.data.augment import CropDraws, CropFlip
from cifar_lab.data.mixing import PairDraws, PairMixing
from cifar_lab.data.randaugment import RandAugment, RandAugmentDraws
from cifar_lab.data.randomness import Purpose, draw, epoch_order, integers
from cifar_lab.data.rectangles import draw_cutout, draw_erasing
from cifar_lab.recipe.schema import Augment


@dataclass(frozen=True)
class EpochDraws:
    """Draws of the N samples that an epoch uses, in its order, on the device; None for what the recipe leaves off."""

    index: Tensor  # int64 (N,): row of the ImageSet's pixels
    ids: Tensor  # int64 (N,)
    labels: Tensor  # int64 (N,)
    crop: CropDraws | None
    blanks: tuple[Tensor, ...]  # int64 (N, 4) each: rectangles of cutout and random erasing
    mix: PairDraws | None  # of the N / 2 pairs
    own_weight: Tensor | None  # float32 (N,)
    randaugment: RandAugmentDraws | None


class EpochPlan:
    """Makes the draws of any epoch, as a pure function of (seed, epoch, ids); `rows_of` is that of the ImageSet."""

    def __init__(
        self,
        ids: Tensor,
        labels: Tensor,
        *,
        rows_of: Callable[[Tensor], Tensor],
        augment: Augment,
        seed: int,
        num_used: int,
        size: tuple[int, int],
        crop: CropFlip | None,
        randaugment: RandAugment | None,
        mixing: PairMixing | None,
        device: torch.device,
    ) -> None:
        self._ids, self._labels, self._rows_of = ids.cpu(), labels.cpu(), rows_of
        self._augment, self._seed, self._num_used = augment, seed, num_used
        self._crop, self._randaugment, self._mixing = crop, randaugment, mixing
        self._size, self._device = size, device

    def draw(self, epoch: int) -> EpochDraws:
        """Draws of epoch number `epoch` (from 0)."""
        order = epoch_order(self._ids, self._seed, epoch)[: self._num_used]
        ids, rows = self._ids[order], self._rows_of(order)
        mix = self._mixing.draw(ids[::2], self._seed, epoch) if self._mixing else None
        if mix is not None:
            mix = PairDraws(*(self._upload(t) for t in (mix.boxes, mix.partner_weight, mix.own_weight)))
        return EpochDraws(
            index=self._upload(rows),
            ids=self._upload(ids),
            labels=self._upload(self._labels[order]),
            crop=self._draw_crop(rows, ids, epoch),
            blanks=tuple(self._upload(t) for t in self._draw_blanks(ids, epoch)),
            mix=mix,
            own_weight=None if mix is None else mix.own_weight.repeat_interleave(2, output_size=len(ids)),
            randaugment=self._randaugment.draw(ids, self._seed, epoch) if self._randaugment else None,
        )

    def _upload(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _draw_crop(self, rows: Tensor, ids: Tensor, epoch: int) -> CropDraws | None:
        if self._crop is None:
            return None
        padding, flip = self._augment.crop_padding, self._augment.flip

        def integer(n: int, purpose: Purpose, of_epoch: int = epoch) -> Tensor:
            return integers(draw(ids, self._seed, of_epoch, purpose), n)

        nothing = torch.zeros_like(ids)
        dy, dx = (
            integer(2 * padding + 1, purpose) if padding else nothing for purpose in (Purpose.CROP_Y, Purpose.CROP_X)
        )
        if flip == "alternating":
            # A fixed half is mirrored in even epochs and the other half in odd ones (arXiv 2404.00498).
            mirrored = (integer(2, Purpose.FLIP, 0) + epoch) % 2
        else:
            mirrored = integer(2, Purpose.FLIP) if flip else nothing
        crop = self._crop.arrange(rows, dy, dx, mirrored)
        return CropDraws(self._upload(crop.index), self._upload(crop.starts), crop.num_plain)

    def _draw_blanks(self, ids: Tensor, epoch: int) -> list[Tensor]:
        height, width = self._size
        blanks = []
        if self._augment.cutout:
            blanks.append(draw_cutout(ids, self._seed, epoch, self._augment.cutout, height, width))
        if self._augment.erase_prob:
            blanks.append(draw_erasing(ids, self._seed, epoch, self._augment.erase_prob, height, width))
        return blanks
