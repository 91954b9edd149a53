"""The processes of a run: who we are, how we talk, what rank 0 does for all."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object

from cifar_lab.errors import UsageError
from cifar_lab.files.shipped import config_file
from cifar_lab.runtime import launcher
from cifar_lab.runtime.device import backend

T = TypeVar("T")
# What the collectives say when another process, or the link to it, is gone.
LOST = (
    "gloo/transport",
    "ncclRemoteError",
    "collective operation timeout",
    "Connection closed",
    "Connection refused",
    "Connection reset",
    "Connection was likely closed",
    "Broken pipe",
    "failed to recv",
)


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process, or the link to it, is gone."""
    if isinstance(error, (dist.DistNetworkError, dist.DistStoreError)):
        return True
    # gloo tells it as a plain RuntimeError, NCCL as a DistBackendError, which its own usage and memory errors are too.
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)


@dataclass(frozen=True)
class World:
    """One process's view of all of them."""

    rank: int
    world_size: int
    device: torch.device
    timeout: timedelta | None = None

    @classmethod
    def start(cls, timeout: float | None = None) -> World:
        """Join the other processes of this launch (torchrun, accelerate launch, or none).

        A collective that waits longer than `timeout` seconds fails; None keeps PyTorch's own limits.
        """
        on_cpu = launcher.on_cpu(os.environ) or not torch.accelerator.is_available()
        kind = "cpu" if on_cpu else torch.accelerator.current_accelerator().type
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        deepspeed = launcher.uses_deepspeed(os.environ)
        limits = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
        # Without a named backend DeepSpeed on CPU believes in a world of one; with it a single process fails.
        group = {"backend": backend(kind), **limits} if several else {}
        # The engine's Accelerator finds this state. On CPUs DeepSpeed would become DDP without a word.
        state = PartialState(cpu=on_cpu and not deepspeed, **group)
        # Accelerate numbers CPUs, and moving a module to "cpu:0" replaces its buffers by copies.
        device = torch.device("cpu") if on_cpu else state.device
        world = cls(state.process_index, state.num_processes, device, **limits)
        for variable in ("CIFAR_LAB_WORLD_SIZE", "WORLD_SIZE"):
            expected = os.environ.get(variable)
            if expected and int(expected) != world.world_size:
                raise UsageError(
                    f"{expected} processes were asked for ({variable}) but this process is in a world of "
                    f"{world.world_size}: every process would train alone. On CPUs start with `torchrun "
                    "--nproc-per-node N`, or `ACCELERATE_USE_CPU=true accelerate launch --config_file "
                    f"{config_file('cpu')} --num_processes N`."
                )
        return world

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def from_main(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises on rank 0, on every rank; `work` must contain no collective."""
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def main_first(self, work: Callable[[], T]) -> T:
        """What `work` returns here, done by rank 0 before the others, who find what it has fetched."""
        results: list[T] = []
        self.from_main(lambda: results.append(work()))
        return results[0] if self.is_main else work()

    def everyone(self, work: Callable[[], T]) -> T:
        """What `work` returns here; if it raises anywhere, an error is raised on every rank."""
        result, problem = None, None
        try:
            result = work()
        except Exception as error:
            problem = error
        problems = self.gather_objects(problem)
        if any(p is not None for p in problems):
            raise problem or next(p for p in problems if p is not None)
        return result  # None only if `work` returns None

    def gather_objects(self, value: Any) -> list[Any]:
        """`value` of every rank, in rank order."""
        values: list[Any] = gather_object([value])
        return values

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Tensors of equal shape (n, ...) from all ranks as (world_size * n, ...), in rank order."""
        whole: torch.Tensor = gather(tensor)
        return whole

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(abort=kind is not None)

    def close(self, *, abort: bool = False) -> None:
        """Leave the process group, so that the interpreter ends without waiting for peers.

        `abort` what is under way, after an error: NCCL would wait until the others join in.
        """
        if dist.is_initialized():
            # An engine, which is in cycles, keeps gloo's threads. They may still let go of a compressing hook, which is
            # a Python object, and abort the process after Python's end; without an engine `destroy` waits for them.
            gc.collect()
            leave = dist.distributed_c10d._abort_process_group if abort else dist.destroy_process_group
            leave()
