"""A small fast convolutional net in the shape of airbench (arXiv 2404.00498), for the demo and for speed runs.

A 2x2 stem without padding, three blocks of conv, max pool, norm, activation, conv, norm, activation, the maximum over
what is left of the grid, and a linear classifier whose output is scaled by 1/9.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from cifar_lab.models._errors import ModelError

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}
STEM_CHANNELS = 24  # as in airbench: the 2 * 2 * 3 directions of a patch, and their negatives
LOGIT_SCALE = 1 / 9


def build(
    num_classes: int,
    image_size: int,
    *,
    width: int = 64,
    stem_stride: Literal[1, 2] = 1,
    activation: Literal["gelu", "relu", "silu"] = "relu",
) -> nn.Module:
    """Blocks of `width`, 4 * width and 4 * width channels; `stem_stride=2` quarters the work, for slow machines."""
    return SpeedNet(num_classes, image_size, width=width, stem_stride=stem_stride, activation=activation)


class SpeedBlock(nn.Sequential):
    """Two 3x3 convolutions, the first followed by 2x2 max pooling."""

    def __init__(self, in_channels: int, out_channels: int, activation: type[nn.Module]) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(out_channels),
            activation(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            activation(),
        )


class SpeedNet(nn.Module):
    """Images (b, 3, S, S) to logits (b, num_classes)."""

    def __init__(self, num_classes: int, image_size: int, *, width: int, stem_stride: int, activation: str) -> None:
        super().__init__()
        if width < 1:
            raise ModelError(f"width {width} must be at least 1")
        if stem_stride not in (1, 2):
            raise ModelError(f"stem_stride {stem_stride} is not built here: choose 1 or 2")
        if activation not in ACTIVATIONS:
            raise ModelError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        if (image_size - 2) // stem_stride + 1 < 8:
            smallest = 9 if stem_stride == 1 else 16
            raise ModelError(f"image_size {image_size} leaves nothing after three poolings: at least {smallest}")
        self.stem = nn.Sequential(nn.Conv2d(3, STEM_CHANNELS, 2, stem_stride), ACTIVATIONS[activation]())
        widths = (STEM_CHANNELS, width, 4 * width, 4 * width)
        self.blocks = nn.Sequential(*(SpeedBlock(i, o, ACTIVATIONS[activation]) for i, o in pairwise(widths)))
        self.head = nn.Linear(4 * width, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(images))
        return self.head(features.amax((2, 3))) * LOGIT_SCALE
