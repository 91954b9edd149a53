"""What the training loop sees of a strategy; `plain.py` (one process, DDP) and `zero.py` (DeepSpeed) provide it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from cifar_lab.data.stream import Batch
from cifar_lab.runtime.world import World

StateKind = Literal["weights", "optimizer", "ema", "buffers"]


@dataclass(frozen=True)
class Health:
    """What the numerics guard saw, read from the device at log lines and before a save."""

    grad_norm: float
    skipped: int
    first_bad_step: int | None
    first_bad_tensor: str | None


class Predictor(Protocol):
    """What measuring a split takes. Methods marked *collective* are called by every rank in the same order."""

    world: World

    def predict(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) in float32 of `images` (b, 3, s, s), in evaluation mode. Collective under ZeRO-3."""

    def use_ema(self) -> AbstractContextManager[None]:
        """Within it, the moving average of the weights stands in for them, if there is one."""

    def average_buffers(self) -> None:
        """Make floating-point buffers equal everywhere. Collective."""


class Engine(Predictor, Protocol):
    """One model under one strategy."""

    strategy: str
    has_ema: bool
    has_batch_norm: bool
    config: dict[str, Any] | None  # what the strategy's library was told, written into the run

    def forward_backward(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        """Add micro-batch `index` (of accumulation_steps) to the gradient; its mean loss, a scalar on the device."""

    def step(self, step: int, lr: float) -> None:
        """Optimizer step number `step` with learning rate `lr`, on the device alone. Collective."""

    def health(self, *sums: Tensor) -> tuple[Health, list[float]]:
        """The guard's findings, and `sums` summed over all processes: the one host synchronisation. Collective."""

    def state_specs(self, kind: StateKind) -> dict[str, tuple[torch.dtype, torch.Size]]:
        """Names, types and shapes of what `named_state` yields, in its order."""

    def named_state(self, kind: StateKind) -> Iterator[tuple[str, Tensor]]:
        """Full fp32 tensors under the model's own names. Collective, the same order on all ranks."""

    def load_state(self, kind: StateKind, tensors: dict[str, Tensor]) -> None:
        """Put back what `named_state` of any engine yielded. Collective."""

    def resume_at(self, step: int, skipped: int) -> None:
        """Set the counters that are derived from the two integers of a training state."""
