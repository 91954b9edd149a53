"""What the engines of all strategies share: the forward pass, the loss, and what is whole on every process."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lab.data.mixing import soft_cross_entropy
from cifar_lab.data.stream import Batch
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.batchnorm import RunningStatistics
from cifar_lab.runtime.world import World

MOMENTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}


class BaseEngine:
    """Holds the module, its trainable parameters and its persistent buffers by name.

    `model` is what a forward pass calls: the module itself, or what a strategy wraps it into. `ema` has the averages
    that every process keeps whole; those of floating-point buffers are among them under every strategy.
    `config` is DeepSpeed's configuration, complete, where there is one.
    """

    model: nn.Module
    ema: dict[str, Tensor]
    config: dict[str, Any] | None = None

    def __init__(self, world: World, recipe: Recipe, module: nn.Module, accumulation_steps: int, strategy: str) -> None:
        train = recipe.train
        self.world, self.module = world, module
        self.strategy = strategy
        self.accumulation_steps = accumulation_steps
        self.label_smoothing = train.label_smoothing
        self.autocast_dtype = torch.bfloat16 if train.precision == "bf16" else None
        self.running_statistics = RunningStatistics(module, accumulation_steps)
        self.has_batch_norm = bool(self.running_statistics.layers)
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        persistent = module.state_dict(keep_vars=True)
        self.buffers = {name: b for name, b in module.named_buffers() if name in persistent}
        self.moments = MOMENTS[recipe.optim.name]
        if recipe.optim.name == "sgd" and recipe.optim.momentum == 0:
            self.moments = ()
        # A skipped step must not leave its NaN in the running statistics, which would stay there for good.
        self._good_buffers = (
            [b.clone() for b in self.floating_buffers().values()] if train.on_nonfinite == "skip" else []
        )
        self.ema_decay = train.ema_decay
        self.has_ema = train.ema_decay is not None

    def loss(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        """Mean loss of micro-batch `index` of accumulation_steps, ready for a backward pass."""
        seed_generators(self.world.device, torch_seed)
        self.running_statistics.before(index)
        with self.autocast():
            logits = self.model(batch.images)
        return soft_cross_entropy(logits.float(), batch.labels, batch.own_weight, self.label_smoothing)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        self.module.eval()
        # On a CPU the activations of many pictures are fresh pages, out of its cache: 64 are 1.8x as fast as 1000.
        parts = images.split(64) if images.device.type == "cpu" else (images,)
        with self.autocast():
            logits = torch.cat([self.module(part) for part in parts])
        self.module.train()
        return logits.float()

    def average_buffers(self) -> None:
        if self.world.world_size == 1:
            return
        for buffer in [
            *self.floating_buffers().values(),
            *(self.ema[name] for name in self.ema if name in self.buffers),
        ]:
            self.world.sum_(buffer).div_(self.world.world_size)

    def settle_buffers(self, bad: Tensor | bool | None) -> None:
        """Put floating buffers back to what they were before a `bad` step; a scalar on the device where not known."""
        if not self._good_buffers:
            return
        buffers = list(self.floating_buffers().values())
        if bad is not None and bad is not False:
            flag = torch.as_tensor(bad, device=self.world.device).bool()
            for good, buffer in zip(self._good_buffers, buffers, strict=True):
                buffer.copy_(torch.where(flag, good, buffer))
        torch._foreach_copy_(self._good_buffers, buffers)

    def floating_buffers(self) -> dict[str, Tensor]:
        """The persistent buffers that have an average: running statistics, not counters."""
        return {name: b for name, b in self.buffers.items() if b.is_floating_point()}

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 where the recipe says so; alike under every strategy."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=self.autocast_dtype)


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators of the host and of `device`.

    `torch.manual_seed` does so for every kind of device, and formats the stack for each that is not in use, which it
    keeps for later: 0.4 ms a call, and memory that grows.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def ema_decay_at(step: int, decay: float) -> float:
    """Decay for step `step`: a plain average at first, so that short runs do not remember the initial weights."""
    return min(decay, (1 + step) / (10 + step))
