"""ResNet whose classifier sees the features of all four stages.

Fusion in the manner of hypercolumns (arXiv 1411.5752): the outputs of stages 1 to 4 are average-pooled to the last
stage's grid (4x4 at 32 px), concatenated, mixed by one 1x1 convolution to `fusion_width` channels with batch norm and
ReLU, averaged over the grid and classified. A 1x1 convolution of a concatenation is the sum of one lateral projection
a stage, as in feature pyramids (arXiv 1612.03144), but towards the coarse grid, since a picture has one label and not
one a place. Working on that grid keeps it cheap: ResNet-18 grows by 4.4 % in parameters and 1.4 % in operations.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_lab.models.families._residual import ResidualNet, conv, init_weights
from cifar_lab.recipe.section import PositiveInt


def build(
    num_classes: int,
    image_size: int,
    *,
    depth: Annotated[Literal[18, 34], Field(description="Number of layers with weights.")] = 18,
    width: Annotated[PositiveInt, Field(description="Channels of the first stage; they double stage by stage.")] = 64,
    fusion_width: Annotated[
        PositiveInt | None, Field(description="Channels after fusion; null: as many as the last stage has.")
    ] = None,
) -> nn.Module:
    """ResNet-18 or -34 with fused stages."""
    return MultiscaleResNet(num_classes, depth=depth, width=width, fusion_width=fusion_width or 8 * width)


class MultiscaleResNet(ResidualNet):
    """Images (b, 3, S, S) to logits (b, num_classes) through the fused features of all stages."""

    def __init__(self, num_classes: int, *, depth: int, width: int, fusion_width: int) -> None:
        super().__init__(num_classes, depth=depth, width=width, shortcut=True)
        self.fusion = nn.Sequential(conv(sum(self.stage_widths), fusion_width, 1), nn.BatchNorm2d(fusion_width))
        self.head = nn.Linear(fusion_width, num_classes)
        init_weights(self.fusion)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stage_features(images)
        # Not adaptive pooling: its backward on CUDA has no deterministic kernel. With ceil_mode, pooling by 8, 4 and 2
        # gives the grid that the strided convolutions give at any image size.
        pooled = [
            F.avg_pool2d(x, 2 ** (3 - stage), ceil_mode=True, count_include_pad=False) if stage < 3 else x
            for stage, x in enumerate(features)
        ]
        fused = F.relu(self.fusion(torch.cat(pooled, 1)), inplace=True)
        return self.head(fused.mean((2, 3)))
