"""How pictures reach a model, in training, evaluation and prediction alike: the numbers, and every stream's end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_lab.data.augment import Normalize, write_channels_last
from cifar_lab.data.cache import SplitMeta
from cifar_lab.data.images import ImageSet
from cifar_lab.data.resize import Interpolation, Resize
from cifar_lab.data.statistics import constant_channels, mean_std
from cifar_lab.models.factory import own_normalisation
from cifar_lab.recipe import Recipe

logger = logging.getLogger("cifar_lab")

# Float pictures of one chunk. With its scratch it stays in the last-level cache; smaller chunks, that fit the second
# level, lose more to the calls than they gain (32 px, two cores: 74 pictures 0.93 M/s, 128 1.1 M/s, 256 1.3 M/s).
_CHUNK_BYTES = 3 << 20

# Float pictures of one block, the part of a chunk that is written, mixed and normalised together. Mixing is many passes
# of few calls, so a block stays in the second level with its scratch: with mixup 0.7 of the time of whole chunks.
# Without it a block gains 5 % on one core and loses 8 % on two, which share a chunk.
_BLOCK_BYTES = 768 << 10


@dataclass(frozen=True)
class Preparation:
    """Side in pixels that the model is fed, filter of the resize, mean and std a channel on the 0..1 scale."""

    image_size: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        images: ImageSet,
        whole: SplitMeta,
        kept: Sequence[Sequence[float]] | None = None,
    ) -> Preparation:
        """The recipe's own numbers, else those of its initial weights, else those of the pictures that it trains on.

        `images` are the latter, `whole` has the sums of the split that they are of. `kept` are the mean and the std of
        the run's start, whatever became of what they were from. Raises UserError.
        """
        data, model = recipe.data, recipe.model
        if kept is not None:
            mean, std = map(tuple, kept)
        elif data.mean and data.std:
            mean, std = data.mean, data.std
        else:
            own = own_normalisation(model)
            mean, std, source = own or (*mean_std(images, whole), "the training pictures")
            if model.weights or model.pretrained:
                logger.info(
                    "initial weights: pictures are normalised by mean %s and std %s of %s (data.mean and data.std give "
                    "others)",
                    *(", ".join(f"{value:.4g}" for value in values) for values in (mean, std)),
                    source,
                )
        for channel in constant_channels(whole):
            logger.info("channel %d has one value in all training pictures: a model learns nothing from it", channel)
        return cls(data.image_size or images.image_size, data.interpolation, mean, std)


def chunk_size(batch: int, source: tuple[int, int], image_size: int, device: torch.device) -> int:
    """Pictures that are taken through all operations together: the whole batch on an accelerator; always even or 1."""
    if device.type != "cpu":
        return batch
    height, width = source
    widest = height * width if source == (image_size, image_size) else image_size * max(height, width)
    limit = max(2, _CHUNK_BYTES // (4 * 3 * widest))
    size = -(-batch // (-(-batch // limit)))
    return min(size + size % 2, batch)


def pieces(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """[start, stop) cut into ranges of `size`, the last one of what remains."""
    return [(begin, min(begin + size, stop)) for begin in range(start, stop, size)]


class Finish:
    """Fills `images`, float32 (batch, 3, S, S), block by block: write 0..255 into `source(...)`, then call.

    `block`: how many pictures at most; a chunk where they are not mixed, or are resized, whose products like many.
    """

    def __init__(
        self,
        preparation: Preparation,
        source: tuple[int, int],
        *,
        batch: int,
        channels_last: bool,
        device: torch.device,
        mixed: bool = False,
    ) -> None:
        image_size = preparation.image_size
        self.chunk = chunk_size(batch, source, image_size, device)
        # The buffer is kept: fresh pages for each batch would cost more than filling them.
        self.images = torch.empty(
            (batch, 3, image_size, image_size),
            device=device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
        self.normalize = Normalize(preparation.mean, preparation.std, device)
        self._resize: Resize | None = None
        if source != (image_size, image_size):
            self._resize = Resize(
                source,
                image_size,
                preparation.interpolation,
                chunk=self.chunk,
                channels_last=channels_last,
                device=device,
            )
        self.block = self.chunk
        if mixed and self._resize is None and device.type == "cpu":
            limit = _BLOCK_BYTES // (4 * 3 * source[0] * source[1])
            self.block = min(self.chunk, max(2, limit - limit % 2))
        self._scratch: Tensor | None = None
        if self._resize is not None or channels_last:
            self._scratch = torch.empty((self.block, 3, *source), device=device)

    def source(self, start: int, stop: int) -> Tensor:
        """Where the pictures [start, stop) are to be put, float32 (n, 3, H, W) on the scale 0..255."""
        return self.images[start:stop] if self._scratch is None else self._scratch[: stop - start]

    def __call__(self, start: int, stop: int) -> None:
        """Finish the pictures [start, stop)."""
        # Normalised before the resize: filter weights add up to 1, so the order is free and this one is cheaper.
        x, out = self.normalize(self.source(start, stop)), self.images[start:stop]
        if self._resize is not None:
            self._resize(x, out)
        elif self._scratch is not None:
            write_channels_last(x, out)
