"""Antialiased resize as matrix products, equal to `interpolate(..., antialias=True)` up to float32 rounding."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lab.models.tf32 import products

Interpolation = Literal["bicubic", "bilinear"]

# Columns of one product of the second pass. Only the source columns under the filter of these take part: at 32 -> 224
# pixels 4 to 6 of 32. Measured on two cores, 224 px: one dense product 75 us a picture, blocks of 56 48 us, of 16 44 us
# (of 32 slower than both), `interpolate` 260 us.
BLOCK = 16


def resize_weights(source: int, target: int, interpolation: Interpolation) -> Tensor:
    """float32 (target, source): how much each source pixel of a line gives to each target pixel."""
    identity = torch.eye(source).view(1, 1, source, source)
    return F.interpolate(identity, size=(target, source), mode=interpolation, antialias=True)[0, 0]


class Resize:
    """Resizes chunks of at most `chunk` pictures, height x width, to size x size; bicubic overshoot is not clamped.

    A picture's result does not depend on its neighbours or their number.
    """

    def __init__(
        self,
        source: tuple[int, int],
        size: int,
        interpolation: Interpolation,
        *,
        chunk: int,
        channels_last: bool,
        device: torch.device,
    ) -> None:
        height, width = source
        self.size, self.device, self.channels_last = size, device, channels_last
        self._rows = resize_weights(height, size, interpolation).to(device)  # (size, height)
        columns = resize_weights(width, size, interpolation).t()  # (width, size)
        if channels_last:
            self._columns = columns.contiguous().to(device)
            self._wide = torch.empty((chunk, 3, height, size), device=device)
            self._lines = torch.empty((chunk, height, size, 3), device=device)
        else:
            self._tall = torch.empty((chunk, 3, size, width), device=device)
            blocks = _column_blocks(columns, width, size, interpolation)
            self._blocks = [(part, used, w.to(device)) for part, used, w in blocks]

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """Write float32 (n, 3, H, W) resized into `out` (n, 3, size, size)."""
        with products(tf32=False), torch.autocast(self.device.type, enabled=False):
            if self.channels_last:
                self._rows_last(x, out)
            else:
                self._columns_last(x, out)

    def _columns_last(self, x: Tensor, out: Tensor) -> None:
        n, channels, height, width = x.shape
        tall = self._tall[:n]
        rows, planes = self._rows.expand(n * channels, -1, -1), x.view(-1, height, width)
        torch.bmm(rows, planes, out=tall.view(-1, self.size, width))
        lines, result = tall.view(-1, width), out.view(-1, self.size)
        for part, used, weights in self._blocks:
            torch.mm(lines[:, used], weights, out=result[:, part])

    def _rows_last(self, x: Tensor, out: Tensor) -> None:
        n, channels, height, width = x.shape
        wide, lines = self._wide[:n], self._lines[:n]
        planes, columns = x.view(-1, height, width), self._columns.expand(n * channels, -1, -1)
        torch.bmm(planes, columns, out=wide.view(-1, height, self.size))
        # Interleaving the channels between the products moves size / height times fewer numbers than after them.
        for c in range(channels):
            lines[..., c].copy_(wide[:, c])
        result = out.permute(0, 2, 3, 1).view(n, self.size, -1)
        torch.bmm(self._rows.expand(n, -1, -1), lines.view(n, height, -1), out=result)


def _column_blocks(
    weights: Tensor, source: int, target: int, interpolation: Interpolation
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Cut (source, target) weights into (target columns, source columns under their filter, their weights)."""
    scale = source / target
    reach = (2 if interpolation == "bicubic" else 1) * max(scale, 1)
    for start in range(0, target, BLOCK):
        stop = min(start + BLOCK, target)
        first, end = int(scale * (start + 0.5) - reach + 0.5), int(scale * (stop - 0.5) + reach + 0.5)
        used = slice(max(first, 0), min(end, source))
        yield slice(start, stop), used, weights[used, start:stop].contiguous()
