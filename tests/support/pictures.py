"""Small sets of random pictures, and streams over them."""

from __future__ import annotations

from typing import Any

import torch

from cifar_lab.data.images import ImageSet
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import Stream
from cifar_lab.recipe.augment import Augment

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def random_pictures(count: int = 60, height: int = 32, width: int = 32, seed: int = 0) -> ImageSet:
    """Smooth blobs with noise, so that neighbouring pixels are alike and no two pictures are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand((count, 3, 4, 4), generator=generator)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    images = (images + 20 * torch.randn(images.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    # Ids have gaps and differ from the positions, as after a split.
    return ImageSet(images, torch.arange(count) % 10, 3 * torch.arange(count) + 5, tuple("abcdefghij"), "random")


def make_stream(images: ImageSet, augment: dict[str, Any] | None = None, **changes: Any) -> Stream:
    """A stream of one global batch of 12 in micro-batches of 4 unless told otherwise."""
    numbers = {"image_size": images.image_size, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    numbers |= {name: changes.pop(name) for name in numbers.keys() & changes.keys()}
    settings = {
        "seed": 0,
        "global_batch": 12,
        "micro_batch": 4,
        "device": torch.device("cpu"),
    }
    return Stream(images, Preparation(**numbers), Augment(**(augment or {})), **(settings | changes))


def whole_batch(stream: Stream, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Images, labels, ids and own_weight of all micro-batches of global batch `step`, copied."""
    parts = []
    for m in range(stream.global_batch // stream.micro_batch_size):
        batch = stream.micro_batch(step, m)
        parts.append((batch.images.clone(), batch.labels, batch.ids, batch.own_weight))
    images, labels, ids, own = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(labels), torch.cat(ids), None if own[0] is None else torch.cat(own)
