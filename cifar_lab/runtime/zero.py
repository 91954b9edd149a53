"""The engine for DeepSpeed ZeRO, stages 1 to 3; the only file that imports deepspeed.

What it takes from `deepspeed.initialize(...)[1]` is private to DeepSpeed 0.19: `setup.cfg` fixes the minor version, and
tests/runtime/test_zero.py fails if one of these attributes changes its meaning.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import deepspeed
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from cifar_lab.data.stream import Batch
from cifar_lab.errors import UsageError
from cifar_lab.optim.groups import make_optimizer, set_lr
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.engine import Engine, Health, StateKind
from cifar_lab.runtime.world import World
from cifar_lab.runtime.zero_config import ZeroSetup


def prepare_deepspeed() -> None:
    """Keep DeepSpeed from compiling operations and from repeating torch's advice to its authors; before World.start."""
    # On CPUs it would compile a shared-memory all-reduce, which only its inference uses, with both processes at once.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.utils.logger.addFilter(lambda record: "untested optimizer" not in record.getMessage())
    warnings.filterwarnings("ignore", message=".torch.distributed.* is deprecated", category=FutureWarning)


class ZeroEngine(Engine):
    """Optimizer and moving average (and gradients, and weights) in partitions, one a process.

    DeepSpeed synchronises with the host every step by itself (overflow check); what this class adds does not.
    `masters` are the flat fp32 partitions of the trainable parameters, which the optimizer updates. The moving average
    of each lies beside its moments, where DeepSpeed finds the part of a parameter.
    """

    def __init__(
        self, world: World, accelerator: Accelerator, recipe: Recipe, model: nn.Module, setup: ZeroSetup
    ) -> None:
        # Its partitions are flat, and its broadcast of the first weights fails on channels_last ones.
        model = model.to(memory_format=torch.contiguous_format)
        super().__init__(world, accelerator, recipe, model, setup.strategy)
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        if frozen and setup.stage == 3:
            raise UsageError(f"zero3 does not support parameters that are not trained ({frozen[0]}, ...): use zero2")
        self.optimizer = make_optimizer(model, recipe.optim)
        self.model = self.engine = accelerator.prepare(model, self.optimizer)[0]
        self.sharder = self.engine.optimizer
        self.config = accelerator.deepspeed_config
        self.shards_weights = setup.stage == 3
        self.masters: list[Tensor] = (
            self.sharder.fp32_partitioned_groups_flat
            if self.shards_weights
            else self.sharder.single_partition_of_fp32_groups
        )
        self._start_optimizer(self.masters)
        if self.ema_decay is not None:
            for master in self.masters:
                self.optimizer.state[master]["ema"] = master.detach().clone()
            averaged = self.floating_buffers()
            self.ema = {name: b.detach().clone() for name, b in averaged.items()}
            self._live = [*self.masters, *averaged.values()]
            self._averages = [*(self.optimizer.state[m]["ema"] for m in self.masters), *self.ema.values()]
        if self.shards_weights and not setup.offload_param:  # there DeepSpeed's own copy is page-locked
            self._share_weights()
        elif not self.shards_weights:
            self.sharder._lazy_init_hp_params_optimizer_state()  # finds moments and average from now on
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
        self.running_statistics.settle(bad)
        if bad and self.first_bad_step is None:
            self.first_bad_step = step
        self._update_ema(step)

    def health(self, losses: Sequence[Tensor]) -> tuple[Health, list[float]]:
        values = self._all_losses(losses).tolist()
        bad = None if self.first_bad_step is None else "the loss or the gradient norm"
        norm = float(self.engine.get_global_grad_norm() or 0.0)
        return Health(norm, self.engine.skipped_steps, self.first_bad_step, bad), values

    def resume_at(self, step: int, skipped: int) -> None:
        super().resume_at(step, skipped)
        self.engine.skipped_steps = skipped

    @torch.no_grad()
    def publish(self) -> None:
        """Make the forward pass see what `masters` hold now, as DeepSpeed does at the end of a step. Collective."""
        if not self.shards_weights:
            self.sharder.update_lp_params()
            return
        self.sharder._partition_all_parameters()
        for group in range(len(self.masters)):
            self.sharder._reassign_or_swap_out_partitioned_parameters(group)
        persistent = self.sharder.persistent_parameters
        if persistent:
            persistent[0].all_gather(persistent)
        self.sharder.invalidate_secondary_tensor()

    def _read(self, kind: StateKind, name: str) -> Tensor:
        p, key = self._place(kind, name)
        whole: Tensor = safe_get_full_optimizer_state(p, key) if key else safe_get_full_fp32_param(p)
        return whole

    def _write(self, kind: StateKind, name: str, value: Tensor) -> None:
        p, key = self._place(kind, name)
        if not self.shards_weights:
            _ = safe_set_full_optimizer_state(p, value, key) if key else safe_set_full_fp32_param(p, value)
            return
        # Its setter of the whole fails where the last process's part is padded.
        count = p.ds_tensor.numel()
        padded = F.pad(value.flatten(), (0, count * self.world.world_size - value.numel()))
        part = padded[count * self.world.rank :][:count]
        _ = safe_set_local_optimizer_state(p, part, key) if key else safe_set_local_fp32_param(p, part)

    def _place(self, kind: StateKind, name: str) -> tuple[Any, str | None]:
        """The parameter that a tensor belongs to, and its key in the optimizer's state; None: the weights."""
        if kind == "optimizer":
            name, _, moment = name.rpartition(".")
            return self.parameters[name], moment
        return self.parameters[name], "ema" if kind == "ema" else None

    def _share_weights(self) -> None:
        """Let the forward pass read the masters themselves, as DeepSpeed means to when both are fp32 on one device.

        It compares a device with a device's name, finds them different, and keeps a second copy (0.19.8).
        """
        flats = self.sharder.fp16_partitioned_groups_flat
        for group, master in enumerate(self.masters):
            if flats[group].dtype == master.dtype and flats[group].device == master.device:
                flats[group] = master.detach()
                self.sharder._unflatten_partitioned_parameters(group)
                self.sharder.lp_param_buffer = None
