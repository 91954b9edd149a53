"""A small fast convolutional net in the shape of airbench (arXiv 2404.00498), for the demo and for speed runs.

A 2x2 stem without padding, three blocks of conv, max pool, norm, activation, conv, norm, activation, the maximum over
what is left of the grid, and a linear classifier whose output is scaled. Options that the speed run adds: a stem of
fixed filters that whiten 2x2 patches of the training pictures, kernels that begin as the identity, norms without scale.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cifar_lab.models import ModelError
from cifar_lab.recipe.section import PositiveInt

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}
STEM_CHANNELS = 24  # as in airbench: the 2 * 2 * 3 directions of a patch, and their negatives
LOGIT_SCALE = 1 / 9
WHITENING_EPS = 5e-4
NORM_EPS = 1e-12


def build(
    num_classes: int,
    image_size: int,
    *,
    width: Annotated[PositiveInt, Field(description="Channels of block 1; blocks 2 and 3 have four times these.")] = 64,
    stem_stride: Annotated[Literal[1, 2], Field(description="Stride of the stem; 2 needs a quarter of the work.")] = 1,
    activation: Annotated[Literal["gelu", "relu", "silu"], Field(description="Activation function.")] = "relu",
    whiten: Annotated[bool, Field(description="Fix the stem to filters that whiten patches of the pictures.")] = False,
    dirac: Annotated[bool, Field(description="Start each 3x3 kernel as the identity on its first channels.")] = False,
    scaled_norms: Annotated[bool, Field(description="Train the scale of each batch norm; false keeps it at 1.")] = True,
    norm_momentum: Annotated[
        float, Field(gt=0, le=1, description="Weight of a new batch in batch norm's running statistics, as in torch.")
    ] = 0.1,
) -> nn.Module:
    """SpeedNet for (b, 3, image_size, image_size), image_size at least 9, or 16 at stride 2; else ModelError.

    `initialise_from` finds the filters of `whiten`. `dirac` also scales the classifier to unit deviation, and its
    logits by one over its width.
    """
    if (image_size - 2) // stem_stride + 1 < 8:
        smallest = 9 if stem_stride == 1 else 16
        raise ModelError(f"image_size {image_size} leaves nothing after three poolings: at least {smallest}")
    net = SpeedNet(num_classes, width, stem_stride, ACTIVATIONS[activation], whiten=whiten)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps, layer.momentum = NORM_EPS, norm_momentum
            layer.weight.requires_grad = scaled_norms
    if dirac:
        net.start_as_identity()
    return net


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

    def __init__(
        self, num_classes: int, width: int, stem_stride: int, activation: type[nn.Module], *, whiten: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, STEM_CHANNELS, 2, stem_stride), activation())
        widths = (STEM_CHANNELS, width, 4 * width, 4 * width)
        self.blocks = nn.Sequential(*(SpeedBlock(i, o, activation) for i, o in pairwise(widths)))
        self.head = nn.Linear(4 * width, num_classes, bias=False)
        self.logit_scale = LOGIT_SCALE
        self.whitens = whiten
        if whiten:
            self.stem.requires_grad_(False)
            nn.init.zeros_(self.stem[0].bias)

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Kernels that pass their first channels on, and a classifier of unit deviation."""
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight[: layer.in_channels])
        self.head.weight.div_(self.head.weight.std())
        self.logit_scale = 1 / self.head.in_features

    @torch.no_grad()
    def initialise_from(self, images: Tensor) -> None:
        """Set a whitening stem from normalised training images (n, 3, S, S): eigenvectors of their 2x2 patches."""
        if not self.whitens:
            return
        conv = self.stem[0]
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + WHITENING_EPS).sqrt()).T.reshape(-1, 3, 2, 2)
        conv.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(images))
        return self.head(features.amax((2, 3))) * self.logit_scale
