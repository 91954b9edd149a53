"""The streams: micro-batch m of global batch k as a pure function, augmented on the device, and a split to evaluate.

In training the order is crop, flips, rotation, colours, RandAugment, random bytes of erasing (uint8), cutout, erasing,
mixing (float32 of 0..255; CutMix on uint8 where nothing is blanked), normalise, resize. All but the resize run at the
source's resolution: it is linear, and comes last because it makes the pictures larger. So cutout, erasing and CutMix
are in source pixels. A random resized crop makes pictures of the model's size at once; then all runs at that.
On a CPU the work is done in chunks that stay in the cache, and what is float32 in blocks of these; on an accelerator on
the whole micro-batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.data.augment import CropFlip
from cifar_lab.data.distortion import distort_, draw_distortion
from cifar_lab.data.epoch_draws import DrawsAhead, EpochDraws
from cifar_lab.data.images import ImageSet
from cifar_lab.data.mixing import PairMixer, draw_pairs
from cifar_lab.data.preparation import Finish, Preparation, pieces
from cifar_lab.data.randaugment import RandAugment
from cifar_lab.data.randomness import epoch_order
from cifar_lab.data.raw import DataError
from cifar_lab.data.rectangles import draw_blanks, draw_noise, fill_noise_, mask_sides
from cifar_lab.data.resized_crop import ResizedCrop
from cifar_lab.recipe.augment import Augment


@dataclass(frozen=True)
class Batch:
    """Images float32 (b, 3, S, S), labels and ids int64 (b,).

    `own_weight` float32 (b,) is the share of a sample's own label, 1 - that of its partner's (positions 2i and 2i+1);
    None without mixing. The images are a kept buffer, overwritten by the next micro-batch: ask for that after the
    backward pass, which may still read them. `class_weights` float32 (classes,) or None are divided by their mean over
    the labels of the *global* batch, so that the mean loss of its micro-batches is the weighted mean. Mixing does not
    change that divisor, since the two of a pair exchange their shares.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    own_weight: Tensor | None
    class_weights: Tensor | None = None


class Stream:
    """Augmented micro-batches of a training set; holds no position, so a resumed run needs no state of it.

    In each epoch but the last of `num_epochs` a thread makes the draws of the next one; 0: there is no thread.
    """

    def __init__(
        self,
        images: ImageSet,
        preparation: Preparation,
        augment: Augment,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int,
        device: torch.device,
        channels_last: bool = False,
        num_epochs: int = 0,
        class_weights: Tensor | None = None,
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
        self._augment, self._seed, self._class_weights = augment, seed, class_weights
        self._ids, self._labels = images.ids.cpu(), images.labels.cpu()
        held = images.to(device)
        self._pixels, self._rows_of = held.pixels, held.rows_of
        size = (self._pixels.shape[-2], self._pixels.shape[-1])
        self._crop: CropFlip | ResizedCrop | None = None
        if augment.random_resized_crop:
            size = (preparation.image_size, preparation.image_size)
            self._crop = ResizedCrop(self._pixels, augment, size[0], preparation.interpolation)
        self._size = size
        self._finish = Finish(
            preparation,
            size,
            batch=micro_batch,
            channels_last=channels_last,
            device=device,
            mixed=augment.mixup_alpha > 0,
        )
        chunk = self._finish.chunk
        if self._crop is None and (augment.crop_padding or augment.flip):
            self._crop = CropFlip(self._pixels, augment, micro_batch=micro_batch, chunk=chunk)
        self._randaugment: RandAugment | None = None
        if augment.randaugment_ops:
            self._randaugment = RandAugment(augment, size, micro_batch=micro_batch, device=device)
            self._crops = torch.empty((micro_batch, 3, *size), dtype=torch.uint8, device=device)
        self._mixer: PairMixer | None = None
        if mixes:
            pitch = size[1] if self._crop is None or self._randaugment is not None else self._crop.pitch
            self._mixer = PairMixer(augment, size, pitch=pitch, chunk=chunk, block=self._finish.block, device=device)
        self._drawn = DrawsAhead(self._draw, device, num_epochs)
        self._epoch: int | None = None
        self._draws: EpochDraws

    def micro_batch(self, step: int, m: int) -> Batch:
        """Positions [m*b, (m+1)*b) of global batch `step`; its images are valid until the next call."""
        b = self.micro_batch_size
        assert 0 <= m < self.global_batch // b
        epoch, k = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._draws, self._epoch = self._drawn(epoch), epoch
            if self._mixer is not None:
                assert self._draws.mix is not None
                self._mixer.start_epoch(self._draws.mix)
        draws, first = self._draws, k * self.global_batch + m * b
        sides = [mask_sides(rectangles[first : first + b], self._size) for rectangles in draws.blanks]
        if self._randaugment is not None:
            assert draws.randaugment is not None
            for start, stop in pieces(0, b, self._finish.chunk):
                self._crops[start:stop].copy_(self._gather(draws, first + start, first + stop))
            self._randaugment(self._crops, draws.randaugment, first // b)
        for start, stop in pieces(0, b, self._finish.chunk):
            if self._randaugment is not None:
                pixels = self._crops[start:stop]
            else:
                pixels = self._gather(draws, first + start, first + stop)
            if draws.noise is not None:
                fill_noise_(pixels, draws.noise, first + start, first + stop)
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
            class_weights=None if draws.class_weights is None else draws.class_weights[k],
        )

    def _gather(self, draws: EpochDraws, start: int, stop: int) -> Tensor:
        """uint8 pictures of the epoch's positions [start, stop), one chunk, cropped, flipped and distorted."""
        if self._crop is None:
            pixels = self._pixels.index_select(0, draws.index[start:stop])
        else:
            pixels = self._crop(draws.crop, start, stop)
        return distort_(pixels, draws.distortion, start, stop)

    def _draw(self, epoch: int) -> EpochDraws:
        """All draws of epoch number `epoch` (from 0), on the host: a pure function."""
        order = epoch_order(self._ids, self._seed, epoch)[: self.steps_per_epoch * self.global_batch]
        ids, rows, labels = self._ids[order], self._rows_of(order), self._labels[order]
        weights = self._class_weights
        if weights is not None:
            weights = (weights / weights[labels].view(-1, self.global_batch).mean(dim=1, keepdim=True)).float()
        key = self._seed, epoch
        mix = None if self._mixer is None else draw_pairs(self._augment, self._size, ids[::2], *key)
        return EpochDraws(
            index=rows,
            ids=ids,
            labels=labels,
            crop=None if self._crop is None else self._crop.draw(rows, ids, *key),
            distortion=draw_distortion(self._augment, ids, *key),
            blanks=tuple(draw_blanks(self._augment, self._size, ids, *key)),
            noise=draw_noise(self._augment, self._size, ids, *key),
            mix=mix,
            own_weight=None if mix is None else mix.own_weight.repeat_interleave(2),
            randaugment=None if self._randaugment is None else self._randaugment.draw(ids, *key),
            class_weights=weights,
        )


@dataclass(frozen=True)
class EvalBatch:
    """Images float32 (batch, 3, S, S) in a kept buffer, valid until the next batch; labels and ids int64 (batch,).

    `weight` int64 (batch,) is 1 for a sample and 0 for padding, whose picture is a real one that counts elsewhere.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    weight: Tensor


class EvalStream:
    """Batches of consecutive samples, dealt to the ranks in turn: what is in a batch does not depend on their number.

    Every rank has the same number of batches, so that collectives in the forward pass match.
    """

    def __init__(
        self,
        images: ImageSet,
        preparation: Preparation,
        *,
        batch: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
        channels_last: bool = False,
    ) -> None:
        assert 0 <= rank < world_size
        self._num_samples = len(images)
        self.batch = batch = min(batch, self._num_samples)  # more would be padding
        self.rank, self.world_size = rank, world_size
        images = images.to(device)
        self._pixels, self._labels, self._ids = images.pixels, images.labels, images.ids
        source = (self._pixels.shape[-2], self._pixels.shape[-1])
        self._finish = Finish(preparation, source, batch=batch, channels_last=channels_last, device=device)
        # Positions of all batches of all ranks; padding repeats the last sample.
        self._num_batches = -(-self._num_samples // (batch * world_size))
        place = torch.arange(self._num_batches * batch * world_size, device=device)
        self._position = place.clamp(max=self._num_samples - 1)
        self._rows = images.rows_of(self._position)
        self._weight = (place < self._num_samples).long()

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[EvalBatch]:
        for i in range(self._num_batches):
            first = (i * self.world_size + self.rank) * self.batch
            own = slice(first, first + self.batch)
            position, rows = self._position[own], self._rows[own]
            for start, stop in pieces(0, self.batch, self._finish.block):
                self._finish.source(start, stop).copy_(self._pixels.index_select(0, rows[start:stop]))
                self._finish(start, stop)
            yield EvalBatch(
                images=self._finish.images,
                labels=self._labels.index_select(0, position),
                ids=self._ids.index_select(0, position),
                weight=self._weight[own],
            )
