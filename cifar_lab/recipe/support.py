"""The one table of options that a device or a strategy cannot do, with the nearest set-up that works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cifar_lab.recipe.schema import Recipe


@dataclass(frozen=True)
class Unsupported:
    """An option that does not work on a device ("cpu", "cuda") or under a strategy ("single", "ddp", "zero3", ...)."""

    option: str
    where: str
    uses: Callable[[Recipe], bool]
    reason: str
    instead: str


TABLE = (
    Unsupported(
        option="train.sync_batchnorm",
        where="cpu",
        uses=lambda recipe: recipe.train.sync_batchnorm,
        reason="torch's SyncBatchNorm refuses CPU tensors",
        instead="set it to false (statistics are then those of a micro-batch), or train on GPUs",
    ),
)


def unsupported(recipe: Recipe, *, device: str, strategy: str) -> list[str]:
    """What of a recipe cannot be done here, one line each; empty if everything can."""
    return [
        f"{entry.option}: does not work on {entry.where}: {entry.reason}; {entry.instead}"
        for entry in TABLE
        if entry.where in (device, strategy) and entry.uses(recipe)
    ]
