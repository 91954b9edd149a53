"""How large a model is, counted on the meta device: no memory, no weights."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lab.models.factory import build_meta, num_parameters
from cifar_lab.recipe.schema import Model


@dataclass(frozen=True)
class ModelSize:
    """Parameters, and floating-point operations of one image's forward pass (a multiply-add counts as two)."""

    num_parameters: int
    flops_per_image: int


def model_size(model: Model, num_classes: int, image_size: int) -> ModelSize:
    """Build the model on the meta device and run one forward pass there; raises ModelError where it cannot be built."""
    network = build_meta(model, num_classes, image_size)
    return ModelSize(num_parameters(network), forward_flops(network, image_size))


def forward_flops(network: nn.Module, image_size: int) -> int:
    """Floating-point operations of one image's forward pass through a network on the meta device."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:  # the counter's hooks look for a gradient function where one does, under no_grad too
        parameter.requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    for parameter in trained:
        parameter.requires_grad_(True)
    return int(counter.get_total_flops())
