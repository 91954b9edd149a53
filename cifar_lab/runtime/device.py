"""What depends on the kind of device: "cuda", which ROCm is too, "xpu", "mps" and "cpu"."""

import resource
import sys

import torch

from cifar_lab.errors import UsageError

BACKENDS = {"cuda": "nccl", "xpu": "xccl", "cpu": "gloo"}
# Their fused optimizers take `grad_scale` and `found_inf` and do nothing with them (torch 2.14, mps/operations).
HEEDLESS = ("mps",)


def backend(kind: str) -> str:
    """The collectives of a kind of device. Raises UsageError where PyTorch has none."""
    if kind not in BACKENDS:
        raise UsageError(
            f"PyTorch has no collectives on {kind}: start one process, or several on the CPU with "
            "ACCELERATE_USE_CPU=true in front of the command"
        )
    return BACKENDS[kind]


def name(device: torch.device) -> str:
    """What the device is called; "cpu" for the processor."""
    if device.type == "mps":
        return f"{torch.backends.mps.get_name()} (mps)"
    return device.type if device.type == "cpu" else str(torch.get_device_module(device).get_device_name(device))


def synchronize(device: torch.device) -> None:
    """Wait for all that an accelerator was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this process on its device; resident in host memory where it trains on the CPU.

    Metal counts no peak: there it is what its driver holds, which seldom gives anything back.
    """
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if device.type != "cpu":
        return int(torch.get_device_module(device).max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
