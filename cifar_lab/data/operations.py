"""Operations on uint8 (n, 3, H, W), as torchvision.transforms.v2.functional defines them.

RandAugment's geometric ones are index maps: for each output pixel the source pixel that it shows. Of blends `own` and
`other`, float32 (n, 1, 1, 1), are the factor and 1 - factor of each picture.
"""

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
    # Whole numbers, so that the sum of a large picture does not depend on how it is split over threads either.
    total = _grayscale(x).sum(dim=-1, keepdim=True).long().sum(dim=-2, keepdim=True)
    return _to_uint8((x * own).add_((total / (x.shape[-2] * x.shape[-1])).mul_(other)))


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Move the hue of HSV by a part of the colour circle, float32 (n, 1, 1, 1) of -0.5 to 0.5."""
    values = x.float()
    high, low = values.amax(dim=1, keepdim=True), values.amin(dim=1, keepdim=True)
    chroma = high - low
    red, green, blue = values.chunk(3, dim=1)
    sixth = torch.where(high == red, green - blue, torch.where(high == green, blue - red, red - green))
    sixth.div_(chroma.clamp(min=1)).add_(torch.where(high == red, 0.0, torch.where(high == green, 2.0, 4.0)))
    # Each channel falls from the highest value to the lowest and rises again, a third of the circle after the other.
    k = (sixth.add_(6 * shift) + torch.arange(5, 0, -2, device=x.device).view(1, 3, 1, 1)).remainder_(6)
    part = torch.minimum(k, 4 - k).clamp_(0, 1)
    return _to_uint8((high - chroma * part).mul_(255.999 / 255))  # what torchvision's `to_dtype` multiplies by


def flip_rows(x: Tensor, flipped: Tensor) -> Tensor:
    """Upside down where `flipped`, (n, 1, 1, 1), is not 0."""
    return torch.where(flipped != 0, x.flip(-2), x)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn around the middle by angles, float32 (n, 1, 1, 1) each: the nearest pixels, black outside."""
    height, width = x.shape[-2:]
    ys, xs = (torch.arange(side, device=x.device) - (side - 1) / 2 for side in (height, width))
    column = (cos * xs - sin * ys[:, None]).add_((width - 1) / 2).round_().long()
    row = (sin * xs + cos * ys[:, None]).add_((height - 1) / 2).round_().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = (row * width + column).mul_(inside)
    return sample_nearest(x, source.flatten(1), inside.to(torch.uint8).flatten(1))


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


def posterize(x: Tensor, mask: Tensor) -> Tensor:
    """Keep the bits of `mask`, uint8 (n, 1, 1, 1)."""
    return x & mask


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at or above `threshold`, int16 (n, 1, 1, 1)."""
    # The sign bit of x - threshold, spread over the byte, says where not to invert: 4x the speed of `where`.
    below = (x.to(torch.int16) - threshold).bitwise_right_shift_(15).to(torch.uint8)
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
    table[:, 0].zero_()
    table = torch.where(step != 0, table, torch.arange(256, device=x.device))
    return table.to(torch.uint8).gather(1, values).view_as(x)
