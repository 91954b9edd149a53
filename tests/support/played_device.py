"""A device that this machine does not have, played by the processor: its tensors say "meta" and hold real numbers.

Like Apple's it has no float64: what would put one there raises TypeError. So does what mixes it with host memory, as on
any device. Autograd takes "meta" as it is, so a whole training runs, and its numbers can be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
NAME, PEAK = "Played 1", 2**20
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
READS = (aten._local_scalar_dense.default, aten.equal.default)
FUSED = (aten._fused_adamw_.default, aten._fused_sgd_.default)


class Played(torch.Tensor):
    """A tensor of the device; `held` has its numbers."""

    held: torch.Tensor
    heedless = False  # whether its fused optimizers leave `grad_scale` and `found_inf` out, as Metal's do
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Played:
        if held.dtype == torch.float64:
            raise TypeError("the device has no float64")
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device=DEVICE, **layout)

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        """As every device's tensor has it; PyTorch refuses it to subclasses."""
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Played({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Made(TorchDispatchMode):
    """Gives to `Played` what is made on the device, or brought there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = any(issubclass(t, Played) for t in types) or kwargs.get("device") == DEVICE
        return run(func, args, kwargs) if there else func(*args, **kwargs)


class MadeOfNumbers(TorchFunctionMode):
    """`torch.tensor(1.0, device=DEVICE)` calls nothing that the other mode could see."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") == DEVICE:
            return func(*args, **{**kwargs, "device": None}).to(DEVICE)
        return func(*args, **kwargs)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation of the device, or a copy from or to it."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    if func not in COPIES and any(isinstance(t, Played) for t in tensors):
        strangers = [t for t in tensors if not isinstance(t, Played) and t.dim()]  # a number of the host is an argument
        if strangers:
            raise TypeError(f"{func} mixes tensors of the device with those of the host")
    target = kwargs.get("device", DEVICE)
    plain = tree_map(lambda t: t.held if isinstance(t, Played) else t, kwargs)
    if "device" in kwargs:
        plain["device"] = torch.device("cpu")
    if func in FUSED and Played.heedless:
        plain.update(grad_scale=None, found_inf=None)
    out = func(*tree_map(lambda t: t.held if isinstance(t, Played) else t, args), **plain)
    if func is aten.copy_.default:
        return args[0]
    if target != DEVICE or func in READS:
        return out
    out = tree_map(lambda t: Played(t) if isinstance(t, torch.Tensor) else t, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


@contextmanager
def played(monkeypatch: pytest.MonkeyPatch, *, heedless: bool = False) -> Iterator[torch.device]:
    """Within it DEVICE can be trained on."""
    module = SimpleNamespace(
        manual_seed=lambda seed: None, get_device_name=lambda device: NAME, max_memory_allocated=lambda device: PEAK
    )
    monkeypatch.setattr(torch, DEVICE.type, module, raising=False)
    autocast, optimizers = torch.autocast, sys.modules["torch.optim.optimizer"]
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", DEVICE.type])
    monkeypatch.setattr(torch, "autocast", lambda kind, **how: autocast("cpu" if kind == DEVICE.type else kind, **how))
    monkeypatch.setattr(Played, "heedless", heedless)
    # `Module.to` would put a new tensor's strides, but not its `held`, into an old one.
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with MadeOfNumbers(), Made():
        yield DEVICE
