"""What float32 means in matrix products and convolutions: all 24 bits, or TF32, 11 of them, where a GPU has it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def set_tf32(on: bool) -> None:
    """Let both be TF32 or neither, for this process from now on; PyTorch's default is TF32 in convolutions alone."""
    # `fp32_precision` alone would do for the kernels, but the compiler asks in these older ways too and fails where the
    # answers differ; these set both.
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


@contextmanager
def products(*, tf32: bool) -> Iterator[None]:
    """The same within a block, whatever the process allows (bfloat16 passes of CPUs too)."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
    wanted = ("tf32", "tf32", "ieee") if tf32 else ("ieee", "ieee", "ieee")
    saved = [backend.fp32_precision for backend in backends]
    try:
        for backend, precision in zip(backends, wanted, strict=True):
            backend.fp32_precision = precision
        yield
    finally:
        for backend, precision in zip(backends, saved, strict=True):
            backend.fp32_precision = precision


def has_tf32(device: torch.device) -> bool:
    """Whether a device has TF32: NVIDIA's from Ampere (A100) on, AMD's from MI300 on."""
    return device.type == "cuda" and torch.cuda.is_tf32_supported()
