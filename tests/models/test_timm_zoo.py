"""Any timm architecture, its options, and the errors for those it does not have."""

import pytest
import torch
from torch.nn import functional as F

from cifar_lab.models import ModelError
from cifar_lab.models.families import timm_zoo


def test_vit_tiny_at_32_px():
    model = timm_zoo.build(10, 32, arch="vit_tiny_patch16_224", patch_size=4, drop_path=0.1, drop_rate=0.2)
    assert model.patch_embed.grid_size == (8, 8)
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert model.head_drop.p == 0.2
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.arange(2)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_vit_tiny_at_224_px_has_its_published_size():
    with torch.device("meta"):
        model = timm_zoo.build(1000, 224, arch="vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert sum(p.numel() for p in model.parameters()) == 5_717_416


def test_eva02_at_another_size():
    model = timm_zoo.build(10, 28, arch="eva02_tiny_patch14_224", drop_path=0.1)
    assert model(torch.randn(2, 3, 28, 28)).shape == (2, 10)
    assert timm_zoo.build(10, 32, arch="eva02_tiny_patch14_224", patch_size=8).patch_embed.grid_size == (4, 4)


def test_eva02_large_has_its_published_size():
    with torch.device("meta"):
        model = timm_zoo.build(1000, 448, arch="eva02_large_patch14_448.mim_m38m_ft_in22k_in1k")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 305.08


@pytest.mark.parametrize("image_size", [32, 40])
def test_convnets_take_any_image_size(image_size):
    model = timm_zoo.build(10, image_size, arch="mobilenetv3_small_050")
    assert model(torch.randn(2, 3, image_size, image_size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("args", "image_size", "message"),
    [
        ({"arch": "qqqq"}, 224, r"timm cannot build qqqq .*Unknown model"),
        ({"arch": "resnet18", "patch_size": 4}, 32, "timm cannot build resnet18 .*unexpected .*'patch_size'"),
        ({"arch": "vgg11", "drop_path": 0.1}, 32, "unexpected keyword argument 'drop_path_rate'"),
        ({"arch": "vit_tiny_patch16_224"}, 40, "patch size 16 does not divide image_size 40: take 32 or 48"),
        ({"arch": "vit_tiny_patch16_224"}, 8, "image_size 8"),
    ],
)
def test_impossible_arguments(args, image_size, message):
    with pytest.raises(ModelError, match=message):
        timm_zoo.build(10, image_size, **args)


def test_arguments_behind_keyword_passing_subclasses_are_found():
    """This class takes only `*args, **kwargs`; its base class has the arguments."""
    model = timm_zoo.build(10, 32, arch="deit_tiny_distilled_patch16_224", patch_size=8)
    assert model.patch_embed.grid_size == (4, 4)


def test_normalisation_is_that_of_the_published_weights():
    assert timm_zoo.normalisation("vit_tiny_patch16_224") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224)
    mean, _, _ = timm_zoo.normalisation("resnet18")
    assert mean == (0.485, 0.456, 0.406)
