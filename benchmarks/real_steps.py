"""Timed steps of the real engine on pictures of the real stream, in this process of a launch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cifar_lab.data.images import load_images
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import Stream
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.runtime.make import make_engine, uses_channels_last
from cifar_lab.runtime.world import World


class Steps:
    """The engine that a recipe asks for, and a counter of the steps that it has done."""

    def __init__(self, mapping: Mapping[str, Any], folder: Path) -> None:
        recipe, self.world = parse_recipe(mapping), World.start()
        data = recipe.data
        loaded = load_images(data.name, data.args, root=None, max_gib=1.0, cache_dir=folder / "cache")
        images = loaded.train
        schedule = Schedule.make(recipe, len(images), self.world.world_size)
        assert schedule.accumulation_steps == 1
        self.model = build_model(recipe.model, images.num_classes, images.image_size, seed=0)
        self.engine = make_engine(self.world, recipe, self.model, schedule.accumulation_steps)
        self.stream = Stream(
            images,
            Preparation.from_recipe(recipe, images, loaded.sums),
            recipe.data.augment,
            seed=recipe.seed,
            global_batch=schedule.global_batch,
            micro_batch=schedule.micro_batch,
            device=torch.device("cpu"),
            channels_last=uses_channels_last(self.model, recipe),
        )
        (self.m,) = schedule.micro_batches(self.world.rank)
        self.lr, self.step = recipe.optim.lr, 0

    def timed(self, count: int) -> list[float]:
        """Seconds of each of `count` more steps; all processes begin a step together, which is not counted."""
        taken = []
        for _ in range(count):
            if self.world.world_size > 1:
                dist.barrier()
            start = time.perf_counter()
            self.do()
            taken.append(time.perf_counter() - start)
        return taken

    def together(self, count: int) -> float:
        """Seconds of `count` more steps, one after the other as in training."""
        start = time.perf_counter()
        for _ in range(count):
            self.do()
        return time.perf_counter() - start

    def do(self) -> None:
        """One optimizer step."""
        batch = self.stream.micro_batch(self.step, self.m)
        self.engine.forward_backward(batch, index=0, torch_seed=self.step)
        self.engine.step(self.step, self.lr)
        self.step += 1
