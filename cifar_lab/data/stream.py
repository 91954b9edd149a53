"""The training stream: micro-batch m of global batch k as a pure function, augmented on the device.

The order is crop, flip, RandAugment (uint8), cutout, erasing, mixing (float32 of 0..255; CutMix on uint8 where nothing
is blanked), normalise, resize. All but the resize run at the source's resolution: it is linear, and comes last because
it makes the pictures larger. So cutout, erasing and CutMix are in source pixels. On a CPU the work is done in chunks
that stay in the cache, and what is float32 in blocks of these; on an accelerator on the whole micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.data.augment import CropFlip
from cifar_lab.data.epoch import EpochDraws, EpochPlan
from cifar_lab.data.eval_stream import EvalBatch, EvalStream
from cifar_lab.data.images import ImageSet
from cifar_lab.data.mixing import PairMixer, PairMixing
from cifar_lab.data.pipeline import Finish, chunk_size, pieces
from cifar_lab.data.randaugment import RandAugment
from cifar_lab.data.raw import DataError
from cifar_lab.data.rectangles import RectangleMask
from cifar_lab.data.resize import Interpolation
from cifar_lab.recipe.schema import Augment

__all__ = ["Batch", "EvalBatch", "EvalStream", "Stream"]


@dataclass(frozen=True)
class Batch:
    """Images float32 (b, 3, S, S), labels and ids int64 (b,).

    `own_weight` float32 (b,) is the share of a sample's own label, 1 - that of its partner's (positions 2i and 2i+1);
    None without mixing. The images are a kept buffer, overwritten by the next micro-batch: ask for that after the
    backward pass, which may still read them.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    own_weight: Tensor | None


class Stream:
    """Augmented micro-batches of a training set; holds no position, so a resumed run needs no state of it."""

    def __init__(
        self,
        images: ImageSet,
        *,
        augment: Augment,
        image_size: int,
        interpolation: Interpolation,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        global_batch: int,
        micro_batch: int,
        device: torch.device,
        channels_last: bool = False,
    ) -> None:
        assert global_batch % micro_batch == 0
        mixes = augment.mixup_alpha > 0 or augment.cutmix_alpha > 0
        if mixes and micro_batch % 2:
            raise DataError(
                f"mixup and cutmix need pairs: micro-batch {micro_batch} is odd, set train.micro_batch even"
            )
        self.steps_per_epoch = len(images) // global_batch
        if not self.steps_per_epoch:
            raise DataError(f"train.global_batch {global_batch} exceeds the {len(images)} training images: lower it")
        self.global_batch, self.micro_batch_size = global_batch, micro_batch
        held = images.to(device)
        pixels = held.pixels
        height, width = pixels.shape[-2:]
        self._chunk = chunk_size(micro_batch, (height, width), image_size, device)
        self._pixels = pixels
        self._crop: CropFlip | None = None
        if augment.crop_padding or augment.flip:
            self._crop = CropFlip(
                pixels,
                padding=augment.crop_padding,
                padding_mode=augment.padding_mode,
                micro_batch=micro_batch,
                chunk=self._chunk,
            )
        self._randaugment = None
        if augment.randaugment_ops:
            self._randaugment = RandAugment(
                augment.randaugment_ops,
                augment.randaugment_magnitude,
                height=height,
                width=width,
                micro_batch=micro_batch,
                device=device,
            )
            self._crops = torch.empty((micro_batch, *pixels.shape[1:]), dtype=torch.uint8, device=device)
        self._plan = EpochPlan(
            images.ids,
            images.labels,
            rows_of=held.rows_of,
            augment=augment,
            seed=seed,
            num_used=self.steps_per_epoch * global_batch,
            size=(height, width),
            crop=self._crop,
            randaugment=self._randaugment,
            mixing=PairMixing(augment.mixup_alpha, augment.cutmix_alpha, height=height, width=width) if mixes else None,
            device=device,
        )
        self._finish = Finish(
            (height, width),
            image_size,
            interpolation,
            mean=mean,
            std=std,
            batch=micro_batch,
            chunk=self._chunk,
            channels_last=channels_last,
            device=device,
            mixed=augment.mixup_alpha > 0,
        )
        self._mask = RectangleMask(height, width, device)
        self._mixer: PairMixer | None = None
        if mixes:
            pitch = width if self._crop is None or self._randaugment is not None else self._crop.pitch
            self._mixer = PairMixer(
                augment, (height, width), pitch=pitch, chunk=self._chunk, block=self._finish.block, device=device
            )
        self._epoch: int | None = None
        self._draws: EpochDraws

    def micro_batch(self, step: int, m: int) -> Batch:
        """Positions [m*b, (m+1)*b) of global batch `step`; its images are valid until the next call."""
        b = self.micro_batch_size
        assert 0 <= m < self.global_batch // b
        epoch, k = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._draws, self._epoch = self._plan.draw(epoch), epoch
            if self._mixer is not None:
                assert self._draws.mix is not None
                self._mixer.start_epoch(self._draws.mix)
        draws, first = self._draws, k * self.global_batch + m * b
        sides = [self._mask.sides(rectangles[first : first + b]) for rectangles in draws.blanks]
        if self._randaugment is not None:
            assert draws.randaugment is not None
            for start, stop in pieces(0, b, self._chunk):
                self._crops[start:stop].copy_(self._gather(draws, first + start, first + stop))
            self._randaugment(self._crops, draws.randaugment, first // b)
        for start, stop in pieces(0, b, self._chunk):
            if self._randaugment is not None:
                pixels = self._crops[start:stop]
            else:
                pixels = self._gather(draws, first + start, first + stop)
            if self._mixer is not None:
                self._mixer.exchange_(pixels, first + start, first + stop)
            for begin, end in pieces(start, stop, self._finish.block):
                x = self._finish.source(begin, end).copy_(pixels[begin - start : end - start])
                for rows, columns in sides:
                    self._finish.normalize.blank(x, rows[begin:end] * columns[begin:end])
                if self._mixer is not None:
                    self._mixer.blend_(x, first + begin, first + end)
                self._finish(begin, end)
        own = slice(first, first + b)
        return Batch(
            images=self._finish.images,
            labels=draws.labels[own],
            ids=draws.ids[own],
            own_weight=None if draws.own_weight is None else draws.own_weight[own],
        )

    def _gather(self, draws: EpochDraws, start: int, stop: int) -> Tensor:
        """uint8 pictures of the epoch's positions [start, stop), one chunk, cropped and flipped."""
        if self._crop is None:
            return self._pixels.index_select(0, draws.index[start:stop])
        assert draws.crop is not None
        return self._crop(draws.crop, start, stop)
