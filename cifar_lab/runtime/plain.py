"""The engine for one process and for DDP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifar_lab.data.stream import Batch
from cifar_lab.mixing import soft_cross_entropy
from cifar_lab.optim import make_optimizer, set_lr
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.batchnorm import RunningStatistics
from cifar_lab.runtime.engine import Health, StateKind
from cifar_lab.runtime.guard import Guard
from cifar_lab.runtime.world import World

MOMENTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}


class PlainEngine:
    """Weights, optimizer and moving average whole on every process; gradients averaged by DDP."""

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
        self.optimizer = make_optimizer(module, recipe.optim)
        self.moments = MOMENTS[recipe.optim.name]
        if recipe.optim.name == "sgd" and recipe.optim.momentum == 0:
            self.moments = ()
        # Made now and not by the first step, so that a first step that is skipped leaves zeros and not empty memory.
        for p in self.parameters.values():
            self.optimizer.state[p] = {moment: torch.zeros_like(p) for moment in self.moments}
            if recipe.optim.name == "adamw":
                self.optimizer.state[p]["step"] = torch.zeros((), device=p.device)
        self.guard = Guard(list(self.parameters), world.device, train.grad_clip)
        self.ema_decay = train.ema_decay
        self.has_ema = train.ema_decay is not None
        floating = {name: b for name, b in self.buffers.items() if b.is_floating_point()}
        self._averaged = {**self.parameters, **floating} if self.has_ema else {}
        self.ema = {name: t.detach().clone() for name, t in self._averaged.items()}
        self.model: nn.Module = module
        if world.world_size > 1:
            # Buffers are averaged when they are used; sending them each step would cost and hide that they drift.
            self.model = DistributedDataParallel(
                module,
                device_ids=None if world.device.type == "cpu" else [world.device],
                gradient_as_bucket_view=True,
                forward_sync_buffers=False,
            )

    def forward_backward(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        torch.manual_seed(torch_seed)
        self.running_statistics.before(index)
        with self._reducing(index == self.accumulation_steps - 1):
            with self._autocast():
                logits = self.model(batch.images)
            loss = soft_cross_entropy(logits.float(), batch.labels, batch.own_weight, self.label_smoothing)
            (loss / self.accumulation_steps).backward()
        return loss.detach()

    def step(self, step: int, lr: float) -> None:
        set_lr(self.optimizer, lr)
        grads = [p.grad for p in self.parameters.values()]
        missing = [name for name, p in self.parameters.items() if p.grad is None]
        assert not missing, f"parameters without a gradient: {missing[:3]}"
        self.optimizer.grad_scale, self.optimizer.found_inf = self.guard.check(grads, step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.has_ema:
            with torch.no_grad():
                decay = ema_decay_at(step, self.ema_decay)
                torch._foreach_lerp_(list(self.ema.values()), list(self._averaged.values()), 1 - decay)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        self.module.eval()
        with self._autocast():
            logits = self.module(images)
        self.module.train()
        return logits.float()

    @contextmanager
    def use_ema(self) -> Iterator[None]:
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def health(self, *sums: Tensor) -> tuple[Health, list[float]]:
        summed = self.world.sum_(torch.stack([s.double() for s in sums]))
        norm, skipped, bad_step, bad_index, *values = torch.cat([self.guard.scalars(), summed]).tolist()
        bad = bad_step >= 0
        name = self.guard.name(int(bad_index)) if bad else None
        return Health(norm, int(skipped), int(bad_step) if bad else None, name), values

    def average_buffers(self) -> None:
        if self.world.world_size == 1:
            return
        floating = [b for b in self.buffers.values() if b.is_floating_point()]
        floating += [t for name, t in self.ema.items() if name in self.buffers]
        for buffer in floating:
            self.world.sum_(buffer).div_(self.world.world_size)

    def state_specs(self, kind: StateKind) -> dict[str, tuple[torch.dtype, torch.Size]]:
        return {name: (t.dtype, t.shape) for name, t in self._tensors(kind).items()}

    def named_state(self, kind: StateKind) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._tensors(kind).items():
            yield name, tensor.detach()

    @torch.no_grad()
    def load_state(self, kind: StateKind, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._tensors(kind).items():
            tensor.copy_(tensors[name])

    def resume_at(self, step: int, skipped: int) -> None:
        self.guard.skipped.fill_(skipped)
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(step - skipped)

    def _tensors(self, kind: StateKind) -> dict[str, Tensor]:
        if kind == "optimizer":
            return {f"{n}.{m}": self.optimizer.state[p][m] for n, p in self.parameters.items() for m in self.moments}
        return {"weights": dict(self.module.named_parameters()), "ema": self.ema, "buffers": self.buffers}[kind]

    def _autocast(self) -> torch.autocast:
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.world.device.type, dtype=self.autocast_dtype, enabled=enabled)

    def _reducing(self, last: bool) -> AbstractContextManager[None]:
        """DDP averages gradients in the backward pass of the last micro-batch only."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) and not last else nullcontext()

    def _swap(self) -> None:
        for name, average in self.ema.items():
            live = self._averaged[name]
            live.data, average.data = average.data, live.data


def ema_decay_at(step: int, decay: float) -> float:
    """Decay for step `step`: a plain average at first, so that short runs do not remember the initial weights."""
    return min(decay, (1 + step) / (10 + step))
