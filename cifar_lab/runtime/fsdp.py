"""The engine for FSDP2: weights, gradients, moments and moving average in shards, one a process."""

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from cifar_lab.models.blocks import find_blocks
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.engine import StateKind
from cifar_lab.runtime.plain import PlainEngine
from cifar_lab.runtime.world import World


class FsdpEngine(PlainEngine):
    """As one process and DDP, but on shards: each process moves its part of the first dimension of every tensor.

    Weights are gathered around each block, in fp32, and autocast as under every strategy. Gradients are averaged with
    every micro-batch, so none is ever whole for longer than its block. The optimizer holds the local tensors
    themselves: through DTensors its kernels would be dispatched by Python.
    """

    def __init__(self, world: World, accelerator: Accelerator, recipe: Recipe, model: nn.Module) -> None:
        mesh = init_device_mesh(world.device.type, (world.world_size,))
        super().__init__(world, accelerator, recipe, shard(model, mesh), "fsdp2")
        self.guard.reduce = world.sum_

    def _prepare(self, model: nn.Module) -> nn.Module:
        # Autocast alone: what Accelerate shards by itself it shards on GPUs only (1.15).
        prepared: nn.Module = self.accelerator.prepare_model(model, evaluation_mode=True)
        return prepared

    def _moved(self) -> dict[str, Tensor]:
        return {name: p.to_local().detach() for name, p in self.parameters.items()}

    def _take_gradients(self) -> list[Tensor]:
        for name, p in self.parameters.items():
            self.moved[name].grad, p.grad = (None if p.grad is None else p.grad.to_local()), None
        return super()._take_gradients()

    def publish(self) -> None:
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _whole(self, kind: StateKind) -> dict[str, Tensor]:
        shards = {"weights": self.specs["weights"], "ema": self.parameters}
        if kind == "optimizer":
            return {} if self.loss_scale is None else self.loss_scale.state
        return {name: tensor for name, tensor in super()._whole(kind).items() if name not in shards.get(kind, ())}

    def _read(self, kind: StateKind, name: str) -> Tensor:
        like, local = self._place(kind, name)
        whole = DTensor.from_local(
            local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        return whole.full_tensor()

    def _write(self, kind: StateKind, name: str, value: Tensor) -> None:
        _, local = self._place(kind, name)
        if len(local):  # the last processes have none of a short tensor
            local.copy_(value.chunk(self.world.world_size)[self.world.rank])

    def _place(self, kind: StateKind, name: str) -> tuple[DTensor, Tensor]:
        """The parameter that a tensor belongs to, and this process's part of the tensor."""
        if kind == "weights":
            weight = self.module.get_parameter(name)
            return weight, weight.to_local()
        if kind == "ema":
            return self.parameters[name], self.ema[name]
        name, _, moment = name.rpartition(".")
        return self.parameters[name], self.optimizer.state[self.moved[name]][moment]


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """`model`, in place, sharded by the settings of the launch, whose blocks are gathered one after the other."""
    plugin = FullyShardedDataParallelPlugin()  # of the launcher
    model = model.to(memory_format=torch.contiguous_format)  # others cannot be cut
    for block in find_blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=plugin.reshard_after_forward)
    fully_shard(model, mesh=mesh, reshard_after_forward=plugin.reshard_after_forward)
    return model
