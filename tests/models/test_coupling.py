"""Which nets give another result at another micro-batch: told from the net, and checked by its outputs."""

import pytest
import timm
import torch
from support.small import small
from torch import nn

from cifar_lab.models.coupling import coupling_layers
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import parse_recipe

NETS = {
    "vit": ("vit", {"width": 16, "depth": 2, "heads": 2}),
    "vit dropout": ("vit", {"width": 16, "depth": 2, "heads": 2, "dropout": 0.5}),
    "vit drop path": ("vit", {"width": 16, "depth": 2, "heads": 2, "drop_path": 0.5}),
    "resnet": ("resnet", {"width": 4}),
    "speednet": ("speednet", {"width": 4}),
    "timm vit": ("timm_zoo", {"arch": "test_vit"}),
    "timm vit drop path": ("timm_zoo", {"arch": "test_vit", "drop_path": 0.5}),
    "timm vit drop rate": ("timm_zoo", {"arch": "test_vit", "drop_rate": 0.5}),
    "timm convnext": ("timm_zoo", {"arch": "test_convnext"}),
    "timm resnet": ("timm_zoo", {"arch": "test_resnet"}),
}


@pytest.mark.parametrize("name", NETS)
def test_what_is_said_is_what_the_net_does(name):
    """Halves of a batch, each after seeding, against the whole batch: equal where nothing couples."""
    family, args = NETS[name]
    size = 160 if "timm" in name else 32
    recipe = parse_recipe(small(model={"name": family, "args": args}, data__image_size=size), check_files=False)
    net = build_model(recipe.model, 10, size, seed=0).train()
    for parameter in net.parameters():  # layer scale and zero-initialised classifiers would hide the rest
        nn.init.uniform_(parameter, -0.2, 0.2)
    images = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))

    def logits(parts):
        found = []
        for number, part in enumerate(parts):
            torch.manual_seed(number)
            found.append(net(part))
        return torch.cat(found)

    with torch.no_grad():
        same = torch.allclose(logits([images]), logits(images.split(4)), rtol=1e-3, atol=1e-4)
    assert same == (coupling_layers(net) == [])


class Own(nn.Module):
    """A layer with one attribute."""

    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)


class OwnDrop(Own):
    """By its name, one that drops."""


@pytest.mark.parametrize(
    ("layer", "couples"),
    [
        (nn.BatchNorm1d(4, track_running_stats=False), True),
        (nn.SyncBatchNorm(4), True),
        (timm.layers.BatchNormAct2d(4), True),
        (nn.InstanceNorm2d(4, track_running_stats=True), True),
        (nn.InstanceNorm2d(4), False),
        (nn.GroupNorm(2, 4), False),
        (nn.Dropout2d(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
        (timm.layers.DropPath(0.1), True),
        (timm.layers.PatchDropout(0.1), True),
        (timm.layers.DropBlock2d(0.0), False),
        (Own(attn_drop=0.1), True),
        (Own(drop_prob=0.0, p=0.5, scale=1.0), False),
        (Own(drop_last=True), False),
        (OwnDrop(p=0.5), True),
    ],
    ids=str,
)
def test_single_layers(layer, couples):
    assert bool(coupling_layers(nn.Sequential(nn.Linear(4, 4), layer))) == couples
