"""The engine for one process and for DDP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifar_lab.data.stream import Batch
from cifar_lab.optim.groups import make_optimizer, set_lr
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.base import BaseEngine, ema_decay_at
from cifar_lab.runtime.engine import Health, StateKind
from cifar_lab.runtime.guard import Guard
from cifar_lab.runtime.options import connect
from cifar_lab.runtime.world import World


class PlainEngine(BaseEngine):
    """Weights, optimizer and moving average whole on every process; gradients averaged by DDP."""

    def __init__(self, world: World, recipe: Recipe, module: nn.Module, accumulation_steps: int, strategy: str) -> None:
        super().__init__(world, recipe, module, accumulation_steps, strategy)
        self.optimizer = make_optimizer(module, recipe.optim)
        # Made now and not by the first step, so that a first step that is skipped leaves zeros and not empty memory.
        for p in self.parameters.values():
            self.optimizer.state[p] = {moment: torch.zeros_like(p) for moment in self.moments}
            if recipe.optim.name == "adamw":
                self.optimizer.state[p]["step"] = torch.zeros((), device=p.device)
        self.guard = Guard(list(self.parameters), world.device, recipe.train.grad_clip)
        self._averaged = {**self.parameters, **self.floating_buffers()} if self.has_ema else {}
        self.ema = {name: t.detach().clone() for name, t in self._averaged.items()}
        self._share = torch.tensor(1 / accumulation_steps, device=world.device)  # of a micro-batch in the mean loss
        self.model = connect(module, recipe, world)

    def forward_backward(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        with self._reducing(index == self.accumulation_steps - 1):
            loss = self.loss(batch, index=index, torch_seed=torch_seed)
            loss.backward(self._share)
        return loss.detach()

    def step(self, step: int, lr: float) -> None:
        set_lr(self.optimizer, lr)
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        assert len(grads) == len(self.parameters), f"{len(self.parameters) - len(grads)} parameters have no gradient"
        self.optimizer.grad_scale, self.optimizer.found_inf = self.guard.check(grads, step)
        self.settle_buffers(self.optimizer.found_inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.has_ema:
            with torch.no_grad():
                decay = ema_decay_at(step, self.ema_decay)
                torch._foreach_lerp_(list(self.ema.values()), list(self._averaged.values()), 1 - decay)

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

    def state_specs(self, kind: StateKind) -> dict[str, tuple[torch.dtype, torch.Size]]:
        return {name: (t.dtype, t.shape) for name, t in self._tensors(kind).items()}

    def named_state(self, kind: StateKind) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._tensors(kind).items():
            yield name, tensor.detach()

    @torch.no_grad()
    def load_state(self, kind: StateKind, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._tensors(kind).items():
            tensor.copy_(tensors[name])
        self.settle_buffers(False)

    def resume_at(self, step: int, skipped: int) -> None:
        self.guard.skipped.fill_(skipped)
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(step - skipped)

    def _tensors(self, kind: StateKind) -> dict[str, Tensor]:
        if kind == "optimizer":
            return {f"{n}.{m}": self.optimizer.state[p][m] for n, p in self.parameters.items() for m in self.moments}
        return {"weights": dict(self.module.named_parameters()), "ema": self.ema, "buffers": self.buffers}[kind]

    def _reducing(self, last: bool) -> AbstractContextManager[None]:
        """DDP averages gradients in the backward pass of the last micro-batch only."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) and not last else nullcontext()

    def _swap(self) -> None:
        for name, average in self.ema.items():
            live = self._averaged[name]
            live.data, average.data = average.data, live.data
