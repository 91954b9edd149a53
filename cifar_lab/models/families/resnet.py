"""ResNet with basic blocks, projection shortcuts and the stem for small pictures (arXiv 1512.03385)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from cifar_lab.models.families._residual import ResidualNet
from cifar_lab.recipe.schema import PositiveInt


def build(num_classes: int, image_size: int, *, depth: Literal[18, 34] = 18, width: PositiveInt = 64) -> nn.Module:
    """ResNet-18 or -34 for (b, 3, image_size, image_size); `width` is the first stage's number of channels."""
    return ResidualNet(num_classes, depth=depth, width=width, shortcut=True)
