"""How pictures reach a model, in training, evaluation and prediction alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cifar_lab.data.eval_stream import EvalStream
from cifar_lab.data.images import ImageSet
from cifar_lab.data.resize import Interpolation
from cifar_lab.saved_model import Description


@dataclass(frozen=True)
class Preparation:
    """Side in pixels that the model is fed, filter of the resize, mean and std a channel on the 0..1 scale."""

    image_size: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_description(cls, description: Description) -> Preparation:
        """As model.json has it."""
        return cls(description.image_size, description.interpolation, description.mean, description.std)

    def stream(
        self,
        images: ImageSet,
        *,
        batch: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
        channels_last: bool = False,
    ) -> EvalStream:
        """Batches of `images`, prepared, each on one of `world_size` processes."""
        return EvalStream(
            images.to(device),
            image_size=self.image_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            batch=batch,
            device=device,
            rank=rank,
            world_size=world_size,
            channels_last=channels_last,
        )
