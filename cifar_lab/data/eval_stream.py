"""The evaluation stream: every sample of a split exactly once over all processes, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.data.images import ImageSet
from cifar_lab.data.pipeline import Finish, chunk_size, pieces
from cifar_lab.data.resize import Interpolation


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
        *,
        image_size: int,
        interpolation: Interpolation,
        mean: Sequence[float],
        std: Sequence[float],
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
        self._finish = Finish(
            source,
            image_size,
            interpolation,
            mean=mean,
            std=std,
            batch=batch,
            chunk=chunk_size(batch, source, image_size, device),
            channels_last=channels_last,
            device=device,
        )
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
