"""The matrix products equal `interpolate`, whatever precision the session allows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cifar_lab.data.resize import Interpolation, Resize

CPU = torch.device("cpu")
SIZES = [(32, 32, 224), (32, 32, 448), (32, 32, 40), (50, 37, 24), (24, 24, 24)]


def resized(x: torch.Tensor, size: int, mode: Interpolation, channels_last: bool = False) -> torch.Tensor:
    n, channels, height, width = x.shape
    resize = Resize((height, width), size, mode, chunk=n, channels_last=channels_last, device=CPU)
    out = torch.empty(n, channels, size, size)
    out = out.contiguous(memory_format=torch.channels_last) if channels_last else out
    resize(x, out)
    return out


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_equals_interpolate(height: int, width: int, size: int, mode: Interpolation, channels_last: bool) -> None:
    x = torch.randn(3, 3, height, width)
    expected = F.interpolate(x, (size, size), mode=mode, antialias=True)
    assert (resized(x, size, mode, channels_last) - expected).abs().max() < 1e-5


def test_a_picture_does_not_depend_on_the_batch_or_the_threads() -> None:
    x = torch.randn(7, 3, 32, 32)
    for channels_last in (False, True):
        together = resized(x, 224, "bicubic", channels_last)
        for n in (1, 2, 5):
            assert torch.equal(resized(x[:n], 224, "bicubic", channels_last), together[:n])
        threads = torch.get_num_threads()
        torch.set_num_threads(3 - min(threads, 2))
        try:
            assert torch.equal(resized(x, 224, "bicubic", channels_last), together)
        finally:
            torch.set_num_threads(threads)


def test_full_precision_under_autocast_and_reduced_settings() -> None:
    x = torch.randn(2, 3, 32, 32)
    expected = resized(x, 96, "bicubic")
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(resized(x, 96, "bicubic"), expected)
        assert backend.fp32_precision == "bf16"
    finally:
        backend.fp32_precision = before
