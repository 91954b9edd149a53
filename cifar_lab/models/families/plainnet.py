"""The ResNet without its shortcuts: the plain network in which more depth hurts (arXiv 1512.03385, section 4.1)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from cifar_lab.models.families._residual import ResidualNet
from cifar_lab.recipe.section import PositiveInt


def build(
    num_classes: int,
    image_size: int,
    *,
    depth: Annotated[Literal[18, 34], Field(description="Number of layers with weights.")] = 18,
    width: Annotated[PositiveInt, Field(description="Channels of the first stage; they double stage by stage.")] = 64,
) -> nn.Module:
    """Plain-18 or Plain-34 for (b, 3, image_size, image_size)."""
    return ResidualNet(num_classes, depth=depth, width=width, shortcut=False)
