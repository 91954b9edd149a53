"""RandAugment's colour operations on uint8 (n, 3, H, W), as torchvision.transforms.v2.functional defines them.

`own` and `other`, float32 (n, 1, 1, 1), are the factor and 1 - factor of each picture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _to_uint8(x: Tensor) -> Tensor:
    return x.clamp_(0, 255).to(torch.uint8)


def _grayscale(x: Tensor) -> Tensor:
    grey: Tensor = x[:, :1].float().mul_(0.2989).add_(x[:, 1:2], alpha=0.587).add_(x[:, 2:], alpha=0.114)
    return grey.floor_()


def adjust_brightness(x: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Blend with black."""
    return _to_uint8(x * own)


def adjust_saturation(x: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Blend with the picture in grey."""
    return _to_uint8((x * own).add_(_grayscale(x).mul_(other)))


def adjust_contrast(x: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Blend with the mean of the picture in grey."""
    return _to_uint8((x * own).add_(_grayscale(x).mean(dim=(1, 2, 3), keepdim=True).mul_(other)))


def adjust_sharpness(x: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Blend with the picture smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; the border stays."""
    if min(x.shape[-2:]) <= 2:
        return x
    out = x.float()
    inner = out[..., 1:-1, 1:-1]
    # Sums of whole numbers are exact, unlike a convolution by 1/13, and no TF32 gets near them.
    columns = (out[..., :-2] + out[..., 1:-1]).add_(out[..., 2:])
    smooth = (columns[..., :-2, :] + columns[..., 1:-1, :]).add_(columns[..., 2:, :])
    smooth.add_(inner, alpha=4).div_(13).round_()
    inner.add_(smooth.sub_(inner).mul_(other))
    return _to_uint8(out)


def posterize(x: Tensor, bits: int) -> Tensor:
    """Keep the upper `bits` bits."""
    return x & ((0xFF << (8 - bits)) & 0xFF)


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Invert what is at or above `threshold`."""
    # The sign bit of x - threshold, spread over the byte, says where not to invert: 4x the speed of `where`.
    below = (x.to(torch.int16) - math.ceil(threshold)).bitwise_right_shift_(15).to(torch.uint8)
    return x ^ below.bitwise_not_()


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel of one value stays."""
    low, high = (extreme(x.flatten(2), dim=2).float()[..., None, None] for extreme in (torch.amin, torch.amax))
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low).mul_(1 / 255))
    return _to_uint8((x - torch.where(flat, 0.0, low)).div_(scale))


def equalize(x: Tensor) -> Tensor:
    """Equalise each channel's histogram, by Pillow's formula."""
    n, channels, height, width = x.shape
    values = x.reshape(n * channels, -1).long()
    first_bin = torch.arange(n * channels, device=x.device).unsqueeze(1) * 256
    # One flat index_add_ and not scatter_add_, which has no deterministic kernel on CUDA for several dimensions.
    counts = torch.zeros(n * channels * 256, dtype=torch.int32, device=x.device)
    one = torch.ones((), dtype=torch.int32, device=x.device)
    counts.index_add_(0, (values + first_bin).flatten(), one.expand(x.numel()))
    counts = counts.view(-1, 256)
    cumulative = counts.cumsum(dim=1)
    last = counts.gather(1, values.amax(dim=1, keepdim=True))  # pixels in the last bin that has any
    step = (height * width - last) // 255
    table = ((cumulative + step // 2) // step.clamp(min=1)).clamp_(0, 255).roll(1, dims=1)
    table[:, 0] = 0
    table = torch.where(step != 0, table, torch.arange(256, device=x.device))
    return table.to(torch.uint8).gather(1, values).view_as(x)
