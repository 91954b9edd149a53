"""Started by torchrun: train a few steps with each `train.grad_compression` and keep gradients and losses.

    python tests/workers/compression.py OUT_FOLDER

Rank r leaves OUT_FOLDER/NAME-r.npz: the gradient of the last step as one vector, and the losses of all steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.small import small

from cifar_lab.data.stream import Batch
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import parse_recipe
from cifar_lab.runtime.make import make_engine
from cifar_lab.runtime.world import World

STEPS, ACCUMULATION = 4, 2


def train(world: World, compression: str | None) -> dict[str, object]:
    """Steps of two micro-batches, of other pictures on each rank."""
    recipe = parse_recipe(small(train__grad_compression=compression))
    engine = make_engine(world, recipe, build_model(recipe.model, 10, 16, seed=0), ACCUMULATION)
    draw = torch.Generator().manual_seed(world.rank)
    losses, gradient = [], torch.empty(0)
    for step in range(STEPS):
        for index in range(ACCUMULATION):
            images, labels = torch.randn((8, 3, 16, 16), generator=draw), torch.randint(0, 10, (8,), generator=draw)
            batch = Batch(images, labels, torch.arange(8), None)
            loss = engine.forward_backward(batch, index=index, torch_seed=step)
            losses.append(loss.item())
        if step == STEPS - 1:
            gradient = torch.cat([p.grad.flatten() for p in engine.parameters.values()]).clone()
        engine.step(step, 1e-3)
    assert not engine.model.broadcast_buffers  # averaged when they are used
    assert {p.device for p in engine.module.parameters()} == {torch.device("cpu")}  # and no "cpu:0"
    return {"gradient": gradient.numpy(), "losses": losses}


def main(out: str) -> None:
    world = World.start()
    for compression in (None, "fp16", "bf16"):
        np.savez(Path(out) / f"{compression}-{world.rank}.npz", **train(world, compression))
    world.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
