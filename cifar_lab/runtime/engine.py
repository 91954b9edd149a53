"""One model under one strategy: what all strategies share. `plain.py` (one process, DDP) and `zero.py` are the two."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cifar_lab.data.mixing import soft_cross_entropy
from cifar_lab.data.stream import Batch
from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.batchnorm import RunningStatistics
from cifar_lab.runtime.world import World

StateKind = Literal["weights", "optimizer", "ema", "buffers"]
MOMENTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}


@dataclass(frozen=True)
class Health:
    """What the numerics guard saw, read from the device at log lines and before a save."""

    grad_norm: float
    skipped: int
    first_bad_step: int | None
    first_bad_tensor: str | None
    loss_scale: float | None = None


class Engine(ABC):
    """Holds the module, its trainable parameters and its persistent buffers by name.

    `model` is what a forward pass calls: the module itself, or what a strategy wraps it into. `ema` has the averages
    that every process keeps whole; those of floating-point buffers are among them under every strategy.
    `config` is DeepSpeed's configuration, complete, where there is one. `specs` has types and shapes of the tensors of
    each kind of state, in the order of `named_state`. Methods marked *collective* are called by every rank alike.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: dict[str, Any] | None = None

    def __init__(self, world: World, accelerator: Accelerator, recipe: Recipe, model: nn.Module, strategy: str) -> None:
        train = recipe.train
        self.world, self.accelerator, self.module = world, accelerator, model
        self.strategy = strategy
        self.accumulation_steps = accelerator.gradient_accumulation_steps
        self.label_smoothing = train.label_smoothing
        self.running_statistics = RunningStatistics(model, self.accumulation_steps)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        persistent = model.state_dict(keep_vars=True)
        self.buffers = {name: b for name, b in model.named_buffers() if name in persistent}
        self.moments = MOMENTS[recipe.optim.name]
        if recipe.optim.name == "sgd" and recipe.optim.momentum == 0:
            self.moments = ()
        self.ema_decay = train.ema_decay
        self.ema: dict[str, Tensor] = {}
        self._live: list[Tensor] = []
        self._averages: list[Tensor] = []
        self.specs = self._specs()

    @abstractmethod
    def forward_backward(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        """Add micro-batch `index` (of accumulation_steps) to the gradient; its mean loss, a scalar on the device."""

    @abstractmethod
    def step(self, step: int, lr: float) -> None:
        """Optimizer step number `step` with learning rate `lr`, on the device alone. Collective."""

    @abstractmethod
    def health(self, losses: Sequence[Tensor]) -> tuple[Health, list[float]]:
        """The guard's findings, and the `losses` of all micro-batches since the last time: those of every process.

        In the order in which one process would have computed them. The one host synchronisation. Collective.
        """

    def _all_losses(self, losses: Sequence[Tensor]) -> Tensor:
        """`losses`, scalars of whole steps, as those of all processes, float32 (n,), in the order of training."""
        own = torch.stack([*losses]).view(-1, self.accumulation_steps)
        return self.world.gather(own).view(self.world.world_size, *own.shape).transpose(0, 1).flatten()

    def loss(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        """Mean loss of micro-batch `index` of accumulation_steps, ready for a backward pass."""
        seed_generators(self.world.device, torch_seed)
        self.running_statistics.before(index)
        try:
            logits = self.model(batch.images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError("batch norm needs 2 pictures: raise train.micro_batch, or train.global_batch") from None
        self.running_statistics.after(index)
        own, smoothing = batch.own_weight, self.label_smoothing
        return soft_cross_entropy(logits.float(), batch.labels, own, smoothing, batch.class_weights)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) in float32 of `images` (b, 3, s, s), in evaluation mode. Collective under ZeRO-3."""
        self.module.eval()
        # On a CPU the activations of many pictures are fresh pages, out of its cache: 64 are 1.8x as fast as 1000.
        parts = images.split(64) if images.device.type == "cpu" else (images,)
        logits = torch.cat([self.model(part) for part in parts])
        self.module.train()
        return logits.float()

    def average_buffers(self) -> None:
        """Make floating-point buffers equal everywhere. Collective."""
        if self.world.world_size == 1:
            return
        floating = self.floating_buffers()
        for buffer in [*floating.values(), *(self.ema[name] for name in floating if name in self.ema)]:
            self.world.sum_(buffer).div_(self.world.world_size)

    def floating_buffers(self) -> dict[str, Tensor]:
        """The persistent buffers that have an average: running statistics, not counters."""
        return {name: b for name, b in self.buffers.items() if b.is_floating_point()}

    @contextmanager
    def use_ema(self) -> Iterator[None]:
        """Within it, the moving average of the weights stands in for them, if there is one. Collective under ZeRO."""
        if self.ema_decay is None:
            yield
            return
        self._swap()
        self.publish()
        try:
            yield
        finally:
            self._swap()
        self.publish()  # not after an error: a peer that is gone would be waited for

    def publish(self) -> None:  # noqa: B027  # nothing, where they are whole
        """Make the forward pass see weights that were written."""

    def named_state(self, kind: StateKind) -> Iterator[tuple[str, Tensor]]:
        """Full fp32 tensors under the model's own names. Collective, the same order on all ranks."""
        whole = self._whole(kind)
        for name in self.specs[kind]:
            yield name, (whole[name] if name in whole else self._read(kind, name)).detach()

    @torch.no_grad()
    def load_state(self, kind: StateKind, tensors: dict[str, Tensor]) -> None:
        """Put back what `named_state` of any engine yielded. Collective."""
        whole = self._whole(kind)
        for name in self.specs[kind]:
            if name in whole:
                whole[name].copy_(tensors[name])
            else:
                self._write(kind, name, tensors[name])
        self.publish()

    def resume_at(self, step: int, skipped: int) -> None:
        """Set the counters that are derived from the two integers of a training state."""
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(step - skipped)

    def _whole(self, kind: StateKind) -> dict[str, Tensor]:
        """Tensors of a kind that every process has in full; `_read` and `_write` are for the others."""
        weights = {name: p for name, p in self.module.named_parameters() if name not in self.parameters}
        return {"weights": weights, "buffers": self.buffers, "ema": self.ema, "optimizer": {}}[kind]

    def _read(self, kind: StateKind, name: str) -> Tensor:
        raise NotImplementedError

    def _write(self, kind: StateKind, name: str, value: Tensor) -> None:
        raise NotImplementedError

    def _specs(self) -> dict[StateKind, dict[str, tuple[torch.dtype, torch.Size]]]:
        weights = {name: (p.dtype, p.shape) for name, p in self.module.named_parameters()}
        buffers = {name: (b.dtype, b.shape) for name, b in self.buffers.items()}
        averaged = [*self.parameters, *self.floating_buffers()] if self.ema_decay is not None else []
        return {
            "weights": weights,
            "buffers": buffers,
            "optimizer": {f"{name}.{moment}": weights[name] for name in self.parameters for moment in self.moments},
            "ema": {name: (weights | buffers)[name] for name in averaged},
        }

    def _start_optimizer(self, tensors: Collection[Tensor]) -> None:
        """Make its state now and not in the first step: it can be loaded, and is zeros if that step is skipped."""
        for tensor in tensors:
            state = {moment: torch.zeros_like(tensor.detach()) for moment in self.moments}
            if "exp_avg" in state:
                state["step"] = torch.zeros((), device=tensor.device)
            self.optimizer.state[tensor] = state

    def _update_ema(self, step: int) -> None:
        if self.ema_decay is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self._averages, self._live, 1 - ema_decay_at(step, self.ema_decay))

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the contents of live and averaged tensors: DeepSpeed holds views of the live ones."""
        for one, other in zip(self._live, self._averages, strict=True):
            kept = one.detach().clone()
            one.copy_(other)
            other.copy_(kept)


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators of the host and of `device`.

    `torch.manual_seed` does so for every kind of device, and formats the stack for each that is not in use, which it
    keeps for later: 0.4 ms a call, and memory that grows.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def ema_decay_at(step: int, decay: float) -> float:
    """Decay for step `step` (from 0): TensorFlow's warm-up of `tf.train.ExponentialMovingAverage(num_updates=step)`.

    While it lasts the mean age of what is averaged is a tenth of the steps so far: initial weights are soon forgotten.
    """
    return min(decay, (1 + step) / (10 + step))
