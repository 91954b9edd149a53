"""The pictures of a run: which are trained on, held out and tested, and how they reach the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cifar_lab.data.images import ImageSet, load_images
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.splits import split_ids
from cifar_lab.data.stream import EvalStream
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.world import World

# Training pictures that a model may look at before the first step (`initialise_from`).
INITIAL_PICTURES = 5000


@dataclass(frozen=True)
class Splits:
    """The three splits of a run, each a view of the cached pictures, and their one preparation."""

    training: ImageSet
    held_out: ImageSet
    test: ImageSet
    preparation: Preparation

    @classmethod
    def load(cls, recipe: Recipe, cache_dir: Path) -> Splits:
        """As `recipe.data` says. Raises DataError."""
        data = recipe.data
        train, test, stats = load_images(
            data.name, data.args, root=data.root, max_gib=data.max_gib, cache_dir=cache_dir
        )
        train_ids, val_ids = split_ids(train.labels, train.num_classes, data.val_size, data.limit)
        if data.test_limit is not None:
            test = test.subset(split_ids(test.labels, test.num_classes, 0, data.test_limit)[0])
        preparation = Preparation.from_recipe(recipe, train, stats)
        return cls(train.subset(train_ids), train.subset(val_ids), test, preparation)

    def network(self, recipe: Recipe, world: World, *, resumed: bool) -> nn.Module:
        """The network of `recipe` on the CPU; without its initial weights where a checkpoint comes next. Collective."""
        num_classes, image_size = self.training.num_classes, self.preparation.image_size

        def build() -> nn.Module:
            return build_model(recipe.model, num_classes, image_size, seed=recipe.seed, pretrained_ok=not resumed)

        # Published weights are fetched by one process.
        model = world.main_first(build) if recipe.model.pretrained and not resumed else build()
        if not resumed and hasattr(model, "initialise_from"):
            first = self.training.subset(self.training.ids[:INITIAL_PICTURES])
            batches = EvalStream(first, self.preparation, batch=500, device=torch.device("cpu"))
            model.initialise_from(torch.cat([batch.images[batch.weight > 0] for batch in batches]))
        return model
