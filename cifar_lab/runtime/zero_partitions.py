"""Where the parts of each parameter lie in DeepSpeed's flat fp32 partitions, and the way in and out of them.

The attribute names are private to DeepSpeed 0.19; `setup.cfg` fixes the minor version, and if one of them changes its
meaning tests/runtime/test_zero.py fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lab.runtime.world import World


@dataclass(frozen=True)
class Fragment:
    """Elements [start, start + count) of flat partition `group` are those from `offset` on of a flattened parameter."""

    group: int
    start: int
    count: int
    offset: int


class Partitions:
    """This process's fp32 partitions of all trainable parameters, under any ZeRO stage.

    `masters` are the flat tensors that the optimizer updates. `read` and `write` work on them and on every list of
    tensors of the same sizes: moments, moving averages.
    """

    def __init__(self, world: World, optimizer: Any, parameters: dict[str, nn.Parameter]) -> None:
        self.world, self.optimizer = world, optimizer
        self.shards_weights = hasattr(optimizer, "fp32_partitioned_groups_flat")  # stage 3
        self.masters: list[Tensor] = (
            optimizer.fp32_partitioned_groups_flat if self.shards_weights else optimizer.single_partition_of_fp32_groups
        )
        if self.shards_weights:
            self._share_3()
        locate = self._locate_3 if self.shards_weights else self._locate_1_2
        self.shapes = {name: _shape(p) for name, p in parameters.items()}
        self.fragments = {name: locate(p) for name, p in parameters.items()}

    def read(self, flats: list[Tensor], name: str) -> Tensor:
        """The whole of parameter `name` in `flats`, on the training device. Collective."""
        fragment, shape = self.fragments[name], self.shapes[name]
        whole = torch.zeros(shape.numel(), device=self.world.device)
        if fragment is not None:
            whole[fragment.offset : fragment.offset + fragment.count] = self._part(flats, fragment)
        self.world.sum_(whole.view(torch.int32))  # one process has bits and all others zeros: exact for -0.0 and NaN
        return whole.view(shape)

    @torch.no_grad()
    def write(self, flats: list[Tensor], name: str, value: Tensor) -> None:
        """Put this process's part of the whole `value` of parameter `name` into `flats`."""
        fragment = self.fragments[name]
        if fragment is not None:
            flat = value.flatten()  # logical order, whatever the memory format
            self._part(flats, fragment).copy_(flat[fragment.offset : fragment.offset + fragment.count])

    @torch.no_grad()
    def publish(self) -> None:
        """Make the forward pass see what `masters` hold now, as DeepSpeed does at the end of a step. Collective."""
        if not self.shards_weights:
            self.optimizer.update_lp_params()
            return
        self.optimizer._partition_all_parameters()
        for group in range(len(self.masters)):
            self.optimizer._reassign_or_swap_out_partitioned_parameters(group)
        persistent = self.optimizer.persistent_parameters
        if persistent:
            persistent[0].all_gather(persistent)
        self.optimizer.invalidate_secondary_tensor()

    def _share_3(self) -> None:
        """Let the forward pass read the masters themselves, as DeepSpeed means to when both are fp32 on one device.

        It compares a device with a device's name, finds them different, and keeps a second copy (0.19.8).
        """
        flats = self.optimizer.fp16_partitioned_groups_flat
        for group, master in enumerate(self.masters):
            if flats[group].dtype == master.dtype and flats[group].device == master.device:
                flats[group] = master.detach()
                self.optimizer._unflatten_partitioned_parameters(group)
                self.optimizer.lp_param_buffer = None

    @staticmethod
    def _part(flats: list[Tensor], fragment: Fragment) -> Tensor:
        return flats[fragment.group].detach()[fragment.start : fragment.start + fragment.count]

    @staticmethod
    def _locate_1_2(p: Any) -> Fragment | None:
        mapping = p._hp_mapping
        if mapping is None:
            return None  # it lies wholly in other processes' partitions
        flat, own = mapping.hp_fragment_address, mapping.lp_fragment_address
        return Fragment(mapping.param_group_index, flat.start, flat.numel, own.start)

    def _locate_3(self, p: Any) -> Fragment | None:
        group, start, padded = self.optimizer.grad_position[self.optimizer.get_param_id(p)]
        offset = padded * self.world.rank
        count = min(padded, p.ds_numel - offset)
        return Fragment(group, start, count, offset) if count > 0 else None


def _shape(p: Any) -> torch.Size:
    return torch.Size(getattr(p, "ds_shape", p.shape))
