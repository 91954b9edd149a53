"""The engine for one process and for DDP."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cifar_lab.data.stream import Batch
from cifar_lab.optim.groups import make_optimizer, set_lr
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.device import HEEDLESS
from cifar_lab.runtime.engine import Engine, Health, StateKind
from cifar_lab.runtime.guard import Guard
from cifar_lab.runtime.loss_scale import LossScale
from cifar_lab.runtime.world import World


class PlainEngine(Engine):
    """Weights, optimizer and moving average whole on every process; gradients averaged by DDP."""

    def __init__(self, world: World, accelerator: Accelerator, recipe: Recipe, model: nn.Module, strategy: str) -> None:
        super().__init__(world, accelerator, recipe, model, strategy)
        self.loss_scale = LossScale(world.device) if recipe.train.precision == "fp16" else None
        if self.loss_scale is not None:
            self.specs["optimizer"] |= {name: (t.dtype, t.shape) for name, t in self.loss_scale.state.items()}
        self.optimizer = make_optimizer(model, recipe.optim)
        self.moved = self._moved()
        for group in self.optimizer.param_groups:
            group["params"] = [self.moved[name] for name in group["names"]]
        self._start_optimizer(self.moved.values())
        self.guard = Guard(list(self.parameters), world.device, recipe.train.grad_clip, self.loss_scale)
        if self.ema_decay is not None:
            averaged = {**self.moved, **self.floating_buffers()}
            self.ema = {name: t.detach().clone() for name, t in averaged.items()}
            self._live, self._averages = list(averaged.values()), list(self.ema.values())
        # Of a micro-batch in the mean loss.
        self._share = torch.tensor(1 / self.accumulation_steps, device=world.device)
        with warnings.catch_warnings():  # torch 2.13 has a new name for it, Accelerate 1.15 the old one
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            self.model = self._prepare(model)

    def _prepare(self, model: nn.Module) -> nn.Module:
        """What a forward pass calls."""
        prepared: nn.Module = self.accelerator.prepare(model)
        return prepared

    def _moved(self) -> dict[str, Tensor]:
        """What the optimizer moves of each trainable parameter."""
        return self.parameters

    def _take_gradients(self) -> list[Tensor]:
        """Those of `moved`, averaged over processes."""
        grads = [tensor.grad for tensor in self.moved.values() if tensor.grad is not None]
        assert len(grads) == len(self.moved), f"{len(self.moved) - len(grads)} parameters have no gradient"
        return grads

    def forward_backward(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        last = index == self.accumulation_steps - 1  # in its backward pass gradients are averaged
        with nullcontext() if last or self.model is self.module else self.accelerator.no_sync(self.model):
            loss = self.loss(batch, index=index, torch_seed=torch_seed)
            loss.backward(self._share if self.loss_scale is None else self._share * self.loss_scale.value)
        return loss.detach()

    def step(self, step: int, lr: float) -> None:
        set_lr(self.optimizer, lr)
        grads = self._take_gradients()
        scale, bad = self.guard.check(grads, step)
        self.running_statistics.settle(bad)
        if self.world.device.type not in HEEDLESS:
            self.optimizer.grad_scale, self.optimizer.found_inf = scale, bad
            self.optimizer.step()
        elif bad is None or not bad:
            if scale is not None:
                torch._foreach_div_(grads, scale)
            self.optimizer.step()
        if self.loss_scale is not None:
            self.loss_scale.update(bad)
        self.optimizer.zero_grad(set_to_none=True)
        self._update_ema(step)

    def health(self, losses: Sequence[Tensor]) -> tuple[Health, list[float]]:
        scale = [] if self.loss_scale is None else [self.loss_scale.value[None]]
        values = torch.cat([self._all_losses(losses), *scale])
        found = torch.cat([self.guard.scalars(), values.view(torch.int32)]).cpu()
        _, skipped, bad_step, bad_index = found[:4].tolist()
        norm, _, _, _, *known = found.view(torch.float32).tolist()
        bad = bad_step >= 0
        name = self.guard.names[bad_index] if bad else None
        return Health(norm, skipped, bad_step if bad else None, name, known.pop() if scale else None), known

    def resume_at(self, step: int, skipped: int) -> None:
        super().resume_at(step, skipped)
        self.guard.skipped.fill_(skipped)

    def _whole(self, kind: StateKind) -> dict[str, Tensor]:
        if kind == "optimizer":
            states = self.optimizer.state
            moments = {f"{n}.{m}": states[p][m] for n, p in self.parameters.items() for m in self.moments}
            return moments if self.loss_scale is None else moments | self.loss_scale.state
        return {"weights": dict(self.module.named_parameters()), "ema": self.ema, "buffers": self.buffers}[kind]
