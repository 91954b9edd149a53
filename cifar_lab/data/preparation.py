"""How pictures reach a model, in training, evaluation and prediction alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cifar_lab.data.eval_stream import EvalStream
from cifar_lab.data.images import ImageSet, Stats
from cifar_lab.data.resize import Interpolation
from cifar_lab.data.stream import Stream
from cifar_lab.models.factory import own_normalisation
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule


@dataclass(frozen=True)
class Preparation:
    """Side in pixels that the model is fed, filter of the resize, mean and std a channel on the 0..1 scale."""

    image_size: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_recipe(cls, recipe: Recipe, images: ImageSet, stats: Stats) -> Preparation:
        """The recipe's own numbers, else those of its published weights, else the training pictures' `stats`."""
        data = recipe.data
        mean, std = stats.mean, stats.std
        if data.mean and data.std:
            mean, std = data.mean, data.std
        elif own := own_normalisation(recipe.model):
            mean, std = own
        return cls(data.image_size or images.image_size, data.interpolation, tuple(mean), tuple(std))

    def training_stream(
        self, images: ImageSet, recipe: Recipe, schedule: Schedule, *, device: torch.device, channels_last: bool = False
    ) -> Stream:
        """Micro-batches of the training pictures `images`, augmented as `recipe` says, laid out by `schedule`."""
        return Stream(
            images,
            augment=recipe.data.augment,
            image_size=self.image_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            seed=recipe.seed,
            global_batch=schedule.global_batch,
            micro_batch=schedule.micro_batch,
            device=device,
            channels_last=channels_last,
        )

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
            images,
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
