"""Batch arithmetic, durations and the learning rate: pure functions of the recipe, the data's size and the world's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.augment import Augment
from cifar_lab.recipe.schema import Optim


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a recipe is laid out: `global_batch` is the experiment, the rest follows from the topology.

    `micro_batch` is the samples of one forward pass on one process, `accumulation_steps` the micro-batches that a
    process computes for one optimizer step, so global_batch = micro_batch * accumulation_steps * world_size.
    """

    num_train: int
    global_batch: int
    world_size: int
    micro_batch: int
    accumulation_steps: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    eval_every: int
    save_every: int
    log_every: int
    optim: Optim

    @classmethod
    def make(cls, recipe: Recipe, num_train: int, world_size: int = 1) -> Schedule:
        """Lay `recipe` out for `num_train` training images on `world_size` processes, or raise UsageError."""
        train, optim = recipe.train, recipe.optim
        steps_per_epoch = num_train // train.global_batch
        if steps_per_epoch == 0:
            raise UsageError(
                f"train.global_batch is {train.global_batch} but there are only {num_train} training images: no step "
                f"fits into an epoch. Use a global batch of at most {num_train}, or more images (data.limit)."
            )
        largest = micro_batches(recipe, world_size)[-1]
        total_steps = train.steps if train.steps is not None else round((train.epochs or 0) * steps_per_epoch)
        if total_steps < 1:
            raise UsageError(
                f"train.epochs is {train.epochs}, less than one step of {train.global_batch} images: "
                f"use at least {1 / steps_per_epoch:.3g} epochs, or train.steps."
            )
        warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
        if warmup_steps >= total_steps:
            raise UsageError(
                f"optim.warmup_epochs is {optim.warmup_epochs:g} ({warmup_steps} steps) but the whole run has "
                f"{total_steps} steps: shorten the warm-up or lengthen the run."
            )

        def every(epochs: float) -> int:
            return max(1, round(epochs * steps_per_epoch))

        save = recipe.checkpoint
        return cls(
            num_train=num_train,
            global_batch=train.global_batch,
            world_size=world_size,
            micro_batch=largest,
            accumulation_steps=train.global_batch // world_size // largest,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            eval_every=every(recipe.eval.every_epochs),
            save_every=save.every_steps or every(save.every_epochs or 1),
            log_every=recipe.log.every_steps,
            optim=optim,
        )

    def lr_at(self, step: int) -> float:
        """Learning rate of optimizer step `step` (from 0): linear warm-up, then the recipe's shape."""
        optim = self.optim
        if step < self.warmup_steps:
            return optim.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        if optim.schedule == "cosine":
            factor = optim.min_lr_ratio + (1 - optim.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
        elif optim.schedule == "linear":
            factor = 1 - (1 - optim.min_lr_ratio) * progress
        elif optim.schedule == "step":
            factor = optim.gamma ** sum(step >= round(m * self.total_steps) for m in optim.milestones)
        else:
            factor = 1.0
        return optim.lr * factor

    def due(self, step: int, every: int) -> bool:
        """Whether something done each `every` steps happens after `step` steps; the last step always counts."""
        return step % every == 0 or step == self.total_steps

    def logs(self, step: int) -> bool:
        """Log lines also close every epoch, so that a training loss per epoch exists."""
        return self.due(step, self.log_every) or step % self.steps_per_epoch == 0

    def micro_batches(self, rank: int) -> range:
        """The micro-batches of every global batch that process `rank` computes."""
        first = rank * self.accumulation_steps
        return range(first, first + self.accumulation_steps)

    def epoch_at(self, step: int) -> float:
        """Epochs done after `step` steps."""
        return step / self.steps_per_epoch


def mixes(augment: Augment) -> bool:
    """Whether samples are mixed in pairs, which needs an even micro-batch."""
    return augment.mixup_alpha > 0 or augment.cutmix_alpha > 0


def micro_batches(recipe: Recipe, world_size: int) -> list[int]:
    """Micro-batches that divide a process's share of the global batch, ascending, up to the recipe's.

    Raises UsageError where the batch does not divide.
    """
    global_batch, unit = recipe.train.global_batch, 2 if mixes(recipe.data.augment) else 1
    if global_batch % (unit * world_size):
        worlds = [w for w in range(1, global_batch + 1) if global_batch % (unit * w) == 0]
        near = sorted(sorted(worlds, key=lambda w: (abs(w - world_size), w))[:3])
        below = global_batch - global_batch % (unit * world_size)
        pairs = " in pairs (mixup and CutMix need them)" if unit == 2 else ""
        processes = "process" if world_size == 1 else "processes"
        raise UsageError(
            f"train.global_batch {global_batch} does not divide over {world_size} {processes}{pairs}. "
            + (f"It does over {_either(near)}; " if near else "")
            + f"{world_size} {processes} can take a global batch of {_either([below, below + unit * world_size])}."
        )
    share = global_batch // world_size
    cap = recipe.train.micro_batch or share
    fitting = [b for b in range(unit, min(share, cap) + 1, unit) if share % b == 0]
    if not fitting:
        raise UsageError(f"train.micro_batch is {cap}, but mixup and CutMix need at least 2: set it to 2 or more.")
    return fitting


def layout(world_size: int, accumulation_steps: int, micro_batch: int, *, on: str = "") -> str:
    """How a step's images are divided, in words: `2 processes x 1 accumulation step x micro-batch 128`."""
    processes = f"{world_size} process{'es' * (world_size > 1)}{on}"
    steps = f"{accumulation_steps} accumulation step{'s' * (accumulation_steps > 1)}"
    return f"{processes} x {steps} x micro-batch {micro_batch}"


def _either(numbers: list[int]) -> str:
    return " or ".join(str(number) for number in numbers if number)
