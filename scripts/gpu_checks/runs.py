"""Small recipes, and the trainer's own session and steps on a chosen device."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor

from cifar_lab.data.mixing import soft_cross_entropy
from cifar_lab.data.randomness import torch_seed
from cifar_lab.data.stream import Batch
from cifar_lab.optim.groups import make_optimizer, set_lr
from cifar_lab.recipe import Recipe, parse_recipe
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.runtime.world import World
from cifar_lab.training.session import Session
from cifar_lab.training.watchdog import Presence

# Smooth ones: behind ReLU, and from other starts, rounding grows to a tenth of a loss within forty steps.
NETS: dict[str, dict[str, Any]] = {
    "convolutions": {"name": "speednet", "args": {"width": 16, "activation": "gelu", "dirac": True}},
    "attention": {"name": "vit", "args": {"width": 64, "depth": 2, "heads": 2, "patch_size": 4}},
}
Change = Callable[[int, Batch], None]


def small(net: str = "convolutions", **overrides: Any) -> dict[str, Any]:
    """The mapping of a recipe on drawn pictures; keys are dotted with `__`, such as train__micro_batch=8."""
    recipe: dict[str, Any] = {
        "name": "check",
        "data": {
            "name": "shapes",
            "args": {"num_train": 640, "num_test": 200, "image_size": 16},
            "val_size": 0,
            "augment": {"crop_padding": 2, "flip": True},
        },
        "model": copy.deepcopy(NETS[net]),
        "optim": {"name": "sgd", "lr": 0.02, "nesterov": True, "weight_decay": 5e-4, "schedule": "constant"},
        "train": {"steps": 40, "global_batch": 64},
        "log": {"every_steps": 1},
    }
    for key, value in overrides.items():
        *path, last = key.split("__")
        section = recipe
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return recipe


def make_world(device: str) -> World:
    """A world of one process on `device`."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    world = World.start()
    assert world.device.type == device, f"the trainer chose {world.device}, not {device}"
    return world


@contextmanager
def session(mapping: dict[str, Any] | Recipe, path: Path, world: World) -> Iterator[Session]:
    """The trainer's session of a recipe in the new run directory `path`."""
    recipe = mapping if isinstance(mapping, Recipe) else parse_recipe(mapping)
    run_dir = RunDir(path)
    run_dir.create(recipe)
    attempt = claim(run_dir.path)
    heartbeat = Heartbeat(run_dir.path, world.rank)  # never started: no thread, no file
    made = Session(recipe, world, Presence(run_dir, attempt, heartbeat, StopFlag()))
    try:
        yield made
        made.saver.wait()
    finally:
        made.close()
        attempt.release()


def take_steps(made: Session, steps: Iterable[int], change: Change | None = None) -> list[Tensor]:
    """The mean loss of each step, on the device; `change(step, batch)` may spoil a micro-batch before it is used."""
    losses = []
    schedule = made.schedule
    for step in steps:
        total = torch.zeros((), device=made.world.device)
        for index, m in enumerate(schedule.micro_batches(made.world.rank)):
            batch = made.stream.micro_batch(step, m)
            if change is not None:
                change(step, batch)
            total += made.engine.forward_backward(batch, index=index, torch_seed=torch_seed(made.recipe.seed, step, m))
        made.engine.step(step, schedule.lr_at(step))
        losses.append(total / schedule.accumulation_steps)
    return losses


class DoublePrecision:
    """The same net in a plain loop of torch's own parts, in float64 on the CPU; made before the session's first step.

    It takes the session's pictures, and skips the steps of `bad`.
    """

    def __init__(self, made: Session, bad: tuple[int, ...] = ()) -> None:
        self.made, self.bad = made, bad
        self.module = copy.deepcopy(made.engine.module).cpu().double()
        self.optimizer = make_optimizer(self.module, made.recipe.optim)

    def take_steps(self, steps: Iterable[int]) -> list[float]:
        """The mean loss of each step."""
        recipe, schedule, losses = self.made.recipe, self.made.schedule, []
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        for step in steps:
            total = 0.0
            for m in schedule.micro_batches(0):
                batch = self.made.stream.micro_batch(step, m)
                logits = self.module(batch.images.cpu().double())
                own = None if batch.own_weight is None else batch.own_weight.cpu().double()
                loss = soft_cross_entropy(logits, batch.labels.cpu(), own, recipe.train.label_smoothing)
                (loss / schedule.accumulation_steps).backward()
                total += loss.item() / schedule.accumulation_steps
            losses.append(total)
            if recipe.train.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.train.grad_clip)
            if step not in self.bad:
                set_lr(self.optimizer, schedule.lr_at(step))
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return losses

    def weights(self) -> Tensor:
        """All trainable weights in one float64 vector."""
        return torch.cat([p.detach().flatten().clone() for p in self.module.parameters() if p.requires_grad])


def trained_weights(made: Session) -> Tensor:
    """The same of a session."""
    return torch.cat([p.detach().cpu().double().flatten() for p in made.engine.parameters.values()])


def state_of(made: Session) -> dict[str, Tensor]:
    """Copies of all tensors of the training state."""
    kinds = ("weights", "optimizer", "ema", "buffers")
    return {f"{kind}:{name}": t.clone() for kind in kinds for name, t in made.engine.named_state(kind)}
