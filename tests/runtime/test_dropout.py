"""Dropout on feature maps draws the same, whatever lays the map out in memory."""

import pytest
import torch
from support.small import small
from torch import nn
from torch.utils.checkpoint import checkpoint

from cifar_lab.recipe import parse_recipe
from cifar_lab.runtime.dropout import FlatDropout
from cifar_lab.runtime.engine import seed_generators
from cifar_lab.runtime.make import apply_options
from cifar_lab.runtime.world import World

IMAGES = torch.randn(8, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Dropout of elements between convolutions, then of channels, then of features."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Dropout(0.3), nn.Conv2d(8, 8, 3), nn.Dropout2d(0.2))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 10))
        self.recompute = False

    def set_grad_checkpointing(self, enable):
        self.recompute = enable

    def forward(self, images):
        maps = checkpoint(self.maps, images, use_reentrant=False) if self.recompute else self.maps(images)
        return self.head(maps.mean((2, 3)))


def outputs(**options):
    """Logits and all gradients."""
    torch.manual_seed(0)
    recipe = parse_recipe(small(**{f"train__{key}": value for key, value in options.items()}))
    net = apply_options(Net(), recipe, World.start(), "single")
    seed_generators(torch.device("cpu"), 1)
    images = IMAGES.to(memory_format=torch.channels_last) if recipe.train.channels_last else IMAGES
    logits = net(images)
    logits.square().mean().backward()
    return [logits.detach(), *(p.grad for p in net.parameters())]


def assert_close(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recompute", [False, True])
def test_channels_last_draws_the_same(recompute):
    assert_close(*(outputs(channels_last=on, grad_checkpointing=recompute) for on in (True, False)))


@pytest.mark.figures  # a minute for the compiler
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_compiler_draws_the_same(channels_last):
    """Where activations are recomputed it lays maps out by itself."""
    how = {"channels_last": channels_last, "grad_checkpointing": True}
    assert_close(*(outputs(compile=on, **how) for on in (True, False)))


def test_it_is_torchs_on_rows():
    rows = torch.randn(6, 50)
    for p in (0.3, 1.0):
        found = []
        for layer in (nn.Dropout(p), FlatDropout(p)):
            torch.manual_seed(0)
            found.append(layer(rows))
        assert torch.equal(*found)
    assert FlatDropout(0.3).eval()(rows) is rows
