"""What one pass of a model occupies: every allocation of forward and backward, followed on tensors without memory."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cifar_lab.data.mixing import soft_cross_entropy
from cifar_lab.models.blocks import find_blocks
from cifar_lab.models.factory import build_meta
from cifar_lab.models.size import forward_flops
from cifar_lab.planning.footprint import Curve, Footprint, Pass
from cifar_lab.planning.memory import PERSISTENCE_THRESHOLD
from cifar_lab.recipe.schema import Model

# Two batches give each moment's constant and slope. Not 1: batch norm refuses a single value a channel.
BATCHES = (2, 4)
# Kernels that copy their operands into a layout of their own while they run (oneDNN, cuDNN).
REPACKING = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


class AllocationLog(TorchDispatchMode):
    """Bytes of live storages after each operation, those of parameter gradients apart.

    `known` are tensors that were there before and count elsewhere.
    """

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.moments: list[tuple[int, int]] = []  # activations, gradients
        self.operations: list[Any] = []
        self._known = {id(storage): storage for storage in (t.untyped_storage() for t in known)}
        self._live: dict[int, tuple[int, bool, weakref.ref[Any]]] = {}
        self._bytes = [0, 0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "prim":  # asks for a device, the first time for each parameter
            return out
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        scratch = _bytes(args) if func in REPACKING else 0
        self.moments.append((self._bytes[0] + scratch, self._bytes[1]))
        self.operations.append(func)
        return out

    def mark_gradient(self, parameter: nn.Parameter) -> None:
        """Move the storage of a gradient that was just accumulated to the other column."""
        assert parameter.grad is not None
        key = id(parameter.grad.untyped_storage())
        size, is_gradient, reference = self._live.get(key, (0, True, None))
        if reference is not None and not is_gradient:
            self._live[key] = (size, True, reference)
            self._bytes[0] -= size
            self._bytes[1] += size

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._live and key not in self._known:
            size = storage.nbytes()
            self._live[key] = (size, False, weakref.ref(storage, lambda _: self._free(key)))
            self._bytes[0] += size

    def _free(self, key: int) -> None:
        size, is_gradient, _ = self._live.pop(key)
        self._bytes[is_gradient] -= size


def _bytes(tree: Any) -> int:
    return sum(leaf.untyped_storage().nbytes() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def footprint(model: Model, num_classes: int, image_size: int, precision: str) -> Footprint:
    """Measure `model` on CPU kernels at both BATCHES; raises ModelError where it cannot be built.

    CPU attention keeps what the fused CUDA kernels keep (output and log-sum-exp), and autocast's lists agree on what
    transformers and residual nets are made of; scratch inside a kernel is not seen.
    """
    network = build_meta(model, num_classes, image_size)
    sizes = [p.numel() for p in network.parameters()]
    blocks = [sum(p.numel() for p in block.parameters()) for block in find_blocks(network)]
    flops = forward_flops(network, image_size)
    passes: dict[str, Pass] = {}
    half = precision != "fp32"  # of one size, whichever it is
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")  # it is built on "meta": timm reads values then, which fake tensors refuse
        evaluation = _curve(_passes(network.eval(), image_size, half, training=False), gradients=False)
        passes["plain"] = _training(network.train(), image_size, half)
        try:
            network.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            pass  # no such method, or one of timm that refuses
        else:
            passes["checkpointed"] = _training(network, image_size, half)
    return Footprint(
        num_parameters=sum(sizes),
        num_trainable=sum(p.numel() for p in network.parameters() if p.requires_grad),
        num_tensors=len(sizes),
        largest=max(sizes),
        small=sum(size for size in sizes if size < PERSISTENCE_THRESHOLD),
        gathered=2 * (sum(sizes) - sum(blocks) + 2 * max(blocks, default=0)),
        num_groups=len(blocks) + 1,
        buffer_bytes=sum(b.numel() * b.element_size() for b in network.buffers()),
        flops_per_image=flops,
        passes=passes,
        evaluation=evaluation,
    )


def _passes(network: nn.Module, image_size: int, half: bool, *, training: bool) -> list[AllocationLog]:
    """The pass at each of BATCHES, with the backward pass if it is for training."""
    logs = []
    for batch in BATCHES:
        images, labels = torch.empty(batch, 3, image_size, image_size), torch.zeros(batch, dtype=torch.int64)
        log = AllocationLog([*network.parameters(), *network.buffers(), images, labels])
        with _marking(network, log), torch.set_grad_enabled(training), log:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                logits = network(images)
            if training:
                loss = soft_cross_entropy(logits.float(), labels)
                del logits
                loss.backward()
        network.zero_grad()
        logs.append(log)
    return logs


def _training(network: nn.Module, image_size: int, half: bool) -> Pass:
    logs = _passes(network, image_size, half, training=True)
    return Pass(_curve(logs, gradients=False), _curve(logs, gradients=True))


@contextmanager
def _marking(network: nn.Module, log: AllocationLog) -> Iterator[None]:
    trained = [p for p in network.parameters() if p.requires_grad]
    handles = [p.register_post_accumulate_grad_hook(log.mark_gradient) for p in trained]
    yield
    for handle in handles:
        handle.remove()


def _curve(logs: list[AllocationLog], *, gradients: bool) -> Curve:
    """The curve through runs at BATCHES: moment by moment, or through the peaks where the operations differ."""
    small, large = ([a + g * gradients for a, g in log.moments] for log in logs)
    if logs[0].operations != logs[1].operations:
        small, large = [max(small)], [max(large)]
    low, high = BATCHES
    lines = []
    for one, other in zip(small, large, strict=True):
        slope = max(0.0, (other - one) / (high - low))
        lines.append((one - slope * low, slope))
    return Curve.of(lines)
