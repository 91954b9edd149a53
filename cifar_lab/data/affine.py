"""RandAugment's geometric operations as index maps: for each output pixel the source pixel that it shows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def index_maps(level: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Maps of ShearX, ShearY, TranslateX, TranslateY, Rotate, each at +level and -level of its maximum (level 0 to 1).

    Returns int64 (10, H*W) flat source pixels and uint8 (10, H*W): 1 where the source is inside of the picture, else 0.
    Equal to torchvision's `affine` and `rotate` with nearest interpolation and its RandAugment's ranges and centres.
    """
    maps = []
    corner = (-width / 2, -height / 2)
    for sign in (1, -1):
        shear = sign * 0.3 * level
        dx, dy = (int(sign * 150 / 331 * side * level) for side in (width, height))
        angle = math.radians(sign * 30 * level)
        cos, sin = math.cos(angle), math.sin(angle)
        maps.append(
            (
                (1.0, shear, -shear * corner[1], 0.0, 1.0, 0.0),
                (1.0, 0.0, 0.0, shear, 1.0, -shear * corner[0]),
                (1.0, 0.0, -float(dx), 0.0, 1.0, 0.0),
                (1.0, 0.0, 0.0, 0.0, 1.0, -float(dy)),
                (cos, -sin, 0.0, sin, cos, 0.0),
            )
        )
    matrices = torch.tensor(maps).transpose(0, 1).reshape(10, 2, 3)  # order: 2 * operation + sign
    number = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)  # exact below 2**24
    assert height * width < 2**24
    source = F.grid_sample(
        number.expand(10, -1, -1, -1),
        _grid(matrices, height, width),
        mode="nearest",
        padding_mode="zeros",
        align_corners=False,
    )
    source = source.round().long().view(10, -1) - 1
    return source.clamp(min=0), (source >= 0).to(torch.uint8)


def _grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Sampling grid (K, H, W, 2) of matrices in pixels around the centre, in torchvision's order of rounding."""
    ys = torch.linspace((1 - height) * 0.5, (height - 1) * 0.5, steps=height)
    xs = torch.linspace((1 - width) * 0.5, (width - 1) * 0.5, steps=width)
    base = torch.stack((xs.expand(height, width), ys[:, None].expand(height, width), torch.ones(height, width)), dim=-1)
    rescaled = matrices.transpose(1, 2) / torch.tensor([0.5 * width, 0.5 * height])
    return torch.matmul(base.view(1, -1, 3), rescaled).view(-1, height, width, 2)


def sample_nearest(x: Tensor, source: Tensor, inside: Tensor) -> Tensor:
    """Pixels (n, C, H, W) looked up by one map a picture, int64 and uint8 (n, H*W); 0 where the map leaves it."""
    flat = x.flatten(2)
    return flat.gather(2, source.unsqueeze(1).expand_as(flat)).mul_(inside.unsqueeze(1)).view_as(x)
