"""The engine for DeepSpeed ZeRO, stages 1 to 3; the only file that imports deepspeed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from cifar_lab.data.stream import Batch
from cifar_lab.optim.groups import make_optimizer, set_lr
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.base import BaseEngine, ema_decay_at
from cifar_lab.runtime.engine import Health, StateKind
from cifar_lab.runtime.options import OptionError
from cifar_lab.runtime.world import World
from cifar_lab.runtime.zero_config import ZeroSetup, deepspeed_config
from cifar_lab.runtime.zero_partitions import Partitions


def prepare_deepspeed() -> None:
    """Keep DeepSpeed from compiling operations and from repeating torch's advice to its authors; before World.start."""
    # On CPUs it would compile a shared-memory all-reduce, which only its inference uses, with both processes at once.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.utils.logger.addFilter(lambda record: "untested optimizer" not in record.getMessage())
    warnings.filterwarnings("ignore", message=".torch.distributed.* is deprecated", category=FutureWarning)


class ZeroEngine(BaseEngine):
    """Optimizer and moving average (and gradients, and weights) in partitions, one a process.

    DeepSpeed synchronises with the host every step by itself (overflow check); what this class adds does not.
    """

    def __init__(
        self, world: World, recipe: Recipe, module: nn.Module, accumulation_steps: int, setup: ZeroSetup
    ) -> None:
        # Its partitions are flat, and its broadcast of the first weights fails on channels_last ones.
        module = module.to(memory_format=torch.contiguous_format)
        super().__init__(world, recipe, module, accumulation_steps, setup.strategy)
        frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
        if frozen and setup.stage == 3:
            raise OptionError(f"zero3 does not support parameters that are not trained ({frozen[0]}, ...): use zero2")
        num_parameters = sum(p.numel() for p in self.parameters.values())
        self.config = deepspeed_config(
            recipe,
            setup,
            world_size=world.world_size,
            accumulation_steps=accumulation_steps,
            num_parameters=num_parameters,
        )
        self.optimizer = make_optimizer(module, recipe.optim)
        self.engine: Any = deepspeed.initialize(model=module, optimizer=self.optimizer, config=self.config)[0]
        self.model = self.engine
        self.partitions = Partitions(world, self.engine.optimizer, self.parameters)
        self.masters = self.partitions.masters
        # Made now and not by the first step, so that they can be loaded, and are zeros if that step is skipped.
        for master in self.masters:
            self.optimizer.state[master] = {moment: torch.zeros_like(master.detach()) for moment in self.moments}
            if recipe.optim.name == "adamw":
                self.optimizer.state[master]["step"] = torch.zeros((), device=master.device)
        self._averaged = self.floating_buffers() if self.has_ema else {}
        self.ema = {name: b.detach().clone() for name, b in self._averaged.items()}
        self.ema_masters = [master.detach().clone() for master in self.masters] if self.has_ema else []
        self.first_bad_step: int | None = None

    def forward_backward(self, batch: Batch, *, index: int, torch_seed: int) -> Tensor:
        loss = self.loss(batch, index=index, torch_seed=torch_seed)
        self.engine.backward(loss)  # divides by the accumulation
        if index < self.accumulation_steps - 1:
            self.engine.step()  # counts the micro-batch; the last one's, in `step`, moves the weights
        return loss.detach()

    def step(self, step: int, lr: float) -> None:
        set_lr(self.optimizer, lr)
        skipped = self.engine.skipped_steps
        self.engine.step()
        bad = self.engine.skipped_steps > skipped
        self.settle_buffers(bad)
        if bad and self.first_bad_step is None:
            self.first_bad_step = step
        if self.has_ema:
            with torch.no_grad():
                averages = [*self.ema_masters, *self.ema.values()]
                live = [*self.masters, *self._averaged.values()]
                torch._foreach_lerp_(averages, live, 1 - ema_decay_at(step, self.ema_decay))

    @contextmanager
    def use_ema(self) -> Iterator[None]:
        if not self.has_ema:
            yield
            return
        self._swap()
        self.partitions.publish()
        try:
            yield
        finally:
            self._swap()
        self.partitions.publish()  # not after an error: a peer that is gone would be waited for

    def health(self, *sums: Tensor) -> tuple[Health, list[float]]:
        summed = self.world.sum_(torch.stack([s.double() for s in sums])).tolist()
        bad = None if self.first_bad_step is None else "the loss or the gradient norm"
        norm = float(self.engine.get_global_grad_norm() or 0.0)
        return Health(norm, self.engine.skipped_steps, self.first_bad_step, bad), summed

    def state_specs(self, kind: StateKind) -> dict[str, tuple[torch.dtype, torch.Size]]:
        shapes = self.partitions.shapes
        if kind == "buffers":
            return {name: (b.dtype, b.shape) for name, b in self.buffers.items()}
        if kind == "weights":
            named = self.module.named_parameters()
            return {name: (p.dtype, shapes.get(name, p.shape)) for name, p in named}
        if kind == "optimizer":
            return {f"{name}.{m}": (torch.float32, shape) for name, shape in shapes.items() for m in self.moments}
        if not self.has_ema:
            return {}
        specs = {name: (torch.float32, shape) for name, shape in shapes.items()}
        return specs | {name: (b.dtype, b.shape) for name, b in self.ema.items()}

    def named_state(self, kind: StateKind) -> Iterator[tuple[str, Tensor]]:
        whole = self._whole(kind)
        for name in self.state_specs(kind):
            yield name, whole[name].detach() if name in whole else self.partitions.read(*self._place(kind, name))

    @torch.no_grad()
    def load_state(self, kind: StateKind, tensors: dict[str, Tensor]) -> None:
        whole = self._whole(kind)
        for name in self.state_specs(kind):
            if name in whole:
                whole[name].copy_(tensors[name])
            else:
                self.partitions.write(*self._place(kind, name), tensors[name])
        self.settle_buffers(False)
        if kind == "weights":
            self.partitions.publish()

    def resume_at(self, step: int, skipped: int) -> None:
        self.engine.skipped_steps = skipped
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(step - skipped)

    def _whole(self, kind: StateKind) -> dict[str, Tensor]:
        """Tensors of a kind that every process has in full."""
        if kind == "weights":
            return {name: p for name, p in self.module.named_parameters() if name not in self.parameters}
        return {"buffers": self.buffers, "ema": self.ema, "optimizer": {}}[kind]

    def _place(self, kind: StateKind, name: str) -> tuple[list[Tensor], str]:
        """The flat partitions that a tensor lies in, and the name of its parameter."""
        if kind == "optimizer":
            name, _, moment = name.rpartition(".")
            return [self.optimizer.state[master][moment] for master in self.masters], name
        return (self.masters if kind == "weights" else self.ema_masters), name

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the contents of live and averaged tensors: DeepSpeed holds views of the live ones."""
        live, averages = [*self.masters, *self._averaged.values()], [*self.ema_masters, *self.ema.values()]
        for one, other in zip(live, averages, strict=True):
            kept = one.detach().clone()
            one.copy_(other)
            other.copy_(kept)
