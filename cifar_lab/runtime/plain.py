"""The engine for one process and for DDP."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

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

    def __init__(self, world: World, recipe: Recipe, module: nn.Module, accumulation_steps: int, strategy: str) -> None:
        super().__init__(world, recipe, module, accumulation_steps, strategy)
        self.loss_scale = LossScale(world.device) if recipe.train.precision == "fp16" else None
        if self.loss_scale is not None:
            self.specs["optimizer"] |= {name: (t.dtype, t.shape) for name, t in self.loss_scale.state.items()}
        self.optimizer = make_optimizer(module, recipe.optim)
        self._start_optimizer(self.parameters.values())
        self.guard = Guard(list(self.parameters), world.device, recipe.train.grad_clip, self.loss_scale)
        if self.ema_decay is not None:
            averaged = {**self.parameters, **self.floating_buffers()}
            self.ema = {name: t.detach().clone() for name, t in averaged.items()}
            self._live, self._averages = list(averaged.values()), list(self.ema.values())
        self._share = torch.tensor(1 / accumulation_steps, device=world.device)  # of a micro-batch in the mean loss
        self.model = connect(module, recipe, world)

    def forward_backward(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        with self._reducing(index == self.accumulation_steps - 1):
            loss = self.loss(batch, index=index, torch_seed=torch_seed)
            loss.backward(self._share if self.loss_scale is None else self._share * self.loss_scale.value)
        return loss.detach()

    def step(self, step: int, lr: float) -> None:
        set_lr(self.optimizer, lr)
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        assert len(grads) == len(self.parameters), f"{len(self.parameters) - len(grads)} parameters have no gradient"
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

    def _reducing(self, last: bool) -> AbstractContextManager[None]:
        """DDP averages gradients in the backward pass of the last micro-batch only."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) and not last else nullcontext()


def connect(model: nn.Module, recipe: Recipe, world: World) -> nn.Module:
    """`model`, wrapped so that its gradients become the mean over all processes; itself if there is but one."""
    if world.world_size == 1:
        return model
    # Buffers are averaged when they are used; sending them each step would cost and hide that they drift. A static
    # graph would save nothing here, as every parameter has a gradient, and breaks accumulation (pytorch 143580).
    ddp = DistributedDataParallel(
        model,
        device_ids=None if world.device.type == "cpu" else [world.device],
        gradient_as_bucket_view=True,
        forward_sync_buffers=False,
    )
    if recipe.train.grad_compression is not None:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        # Hooks that keep nothing from step to step. PowerSGD keeps an error a process, and a run resumes on any number.
        hooks = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}
        ddp.register_comm_hook(None, hooks[recipe.train.grad_compression])
    return ddp
