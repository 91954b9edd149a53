"""ResNet-18 and -34 for small pictures, with or without shortcuts (arXiv 1512.03385).

One implementation for `plainnet`, `resnet` and `resnet_multiscale`, so that they differ in nothing else.
"""

from torch import Tensor, nn
from torch.nn import functional as F

STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
STAGE_STRIDES = (1, 2, 2, 2)


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A bias-free convolution that keeps the grid, up to its stride; batch norm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; with `shortcut`, the input is added before the last activation.

    Where the shape changes the shortcut is a 1x1 projection with batch norm (option B of the paper).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module | None = None
        if shortcut and (stride != 1 or in_channels != out_channels):
            self.shortcut = nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
        elif shortcut:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out, inplace=True)


class ResidualNet(nn.Module):
    """3x3 stem of stride 1 without pooling, four stages of basic blocks, global average, linear classifier.

    Images (b, 3, S, S) to logits (b, num_classes); stage i has `width * 2**i` channels on a grid of S / 2**i.
    """

    def __init__(self, num_classes: int, *, depth: int, width: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.stage_widths = tuple(width * 2**i for i in range(4))
        stages = []
        channels = width
        for out_channels, num_blocks, stride in zip(self.stage_widths, STAGE_BLOCKS[depth], STAGE_STRIDES, strict=True):
            blocks = []
            for i in range(num_blocks):
                blocks.append(BasicBlock(channels, out_channels, stride if i == 0 else 1, shortcut))
                channels = out_channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(channels, num_classes)
        init_weights(self)

    def stage_features(self, images: Tensor) -> list[Tensor]:
        """The four stages' outputs, finest first."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stage_features(images)[-1].mean((2, 3)))


def init_weights(module: nn.Module) -> None:
    """He initialisation of every convolution (fan out, arXiv 1502.01852)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
