"""Our own networks: shapes, sizes, gradients, and what each family promises."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifar_lab.models import ModelError
from cifar_lab.models.families import plainnet, resnet, resnet_multiscale, speednet, vit
from cifar_lab.recipe import RecipeError, parse_recipe

SMALL = {
    "plainnet": lambda **args: plainnet.build(10, 32, width=4, **args),
    "resnet": lambda **args: resnet.build(10, 32, width=4, **args),
    "resnet_multiscale": lambda **args: resnet_multiscale.build(10, 32, width=4, **args),
    "speednet": lambda **args: speednet.build(10, 32, width=4, **args),
    "vit": lambda **args: vit.build(10, 32, width=16, depth=2, heads=2, **args),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", SMALL)
def test_logits_and_a_gradient_for_every_parameter(family):
    torch.manual_seed(0)
    model = SMALL[family]()
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    F.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("family", ["plainnet", "resnet", "resnet_multiscale", "speednet"])
def test_channels_last_gives_the_same_logits(family):
    model = SMALL[family]().eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "depth", "expected"),
    [
        (resnet.build, 18, 11_173_962),
        (resnet.build, 34, 21_282_122),
        (plainnet.build, 18, 11_173_962 - 173_824),  # without its three projections and their norms
        (plainnet.build, 34, 21_282_122 - 173_824),
        (resnet_multiscale.build, 18, 11_173_962 + 960 * 512 + 2 * 512),
        (resnet_multiscale.build, 34, 21_282_122 + 960 * 512 + 2 * 512),
    ],
)
def test_published_parameter_counts(build, depth, expected):
    with torch.device("meta"):
        assert count(build(10, 32, depth=depth)) == expected


def test_default_vit_and_speednet_sizes():
    with torch.device("meta"):
        assert count(vit.build(10, 32)) == 3_721_738
        assert count(speednet.build(10, 32)) == 1_972_792


@pytest.mark.parametrize("image_size", [32, 33, 36, 48, 64])
def test_residual_nets_take_any_image_size(image_size):
    for build in (plainnet.build, resnet.build, resnet_multiscale.build):
        assert build(7, image_size, width=2)(torch.randn(2, 3, image_size, image_size)).shape == (2, 7)


def test_speednet_whitens_patches_with_a_fixed_stem():
    torch.manual_seed(0)
    net = speednet.build(10, 32, width=4, whiten=True, scaled_norms=False, norm_momentum=0.4)
    images = F.avg_pool2d(torch.randn(64, 3, 34, 34), 3, stride=1) * torch.tensor([1.0, 3.0, 2.0]).view(3, 1, 1)
    net.initialise_from(images)
    found = net.stem[0](images).permute(1, 0, 2, 3).flatten(1)
    gram = found @ found.T / found.size(1)
    torch.testing.assert_close(gram[:12, :12], torch.eye(12), atol=0.05, rtol=0)  # the small epsilon shows a little
    torch.testing.assert_close(found[12:], -found[:12])
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert {"stem.0.weight", "stem.0.bias", "blocks.0.2.weight", "blocks.2.5.weight"} <= frozen
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    # github.com/KellerJordan/cifar10-airbench, airbench94_muon.py
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-12, 0.4)} and len(norms) == 6


def test_speednet_starts_as_the_identity():
    torch.manual_seed(0)
    net = speednet.build(10, 32, width=8, dirac=True)
    images = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(net.blocks[1][0](images[:, :8])[:, :8], images[:, :8])
    assert net.head.weight.std().item() == pytest.approx(1, rel=1e-3)
    assert net.logit_scale == 1 / 32
    plain = speednet.build(10, 32, width=8)
    plain.initialise_from(images)  # nothing to whiten
    assert plain.logit_scale == 1 / 9


def test_convolutions_start_with_he_initialisation():
    torch.manual_seed(0)
    stages = resnet_multiscale.build(10, 32).stages
    for kernel, fan_out in ((stages[2][0].conv1.weight, 256 * 9), (stages[2][0].shortcut[0].weight, 256)):
        assert kernel.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)


def test_width_scales_every_stage():
    narrow, wide = (resnet.build(10, 32, width=width) for width in (4, 8))
    assert narrow.stage_widths == (4, 8, 16, 32)
    assert wide.stage_widths == (8, 16, 32, 64)
    features = narrow.stage_features(torch.randn(2, 3, 32, 32))
    assert [tuple(x.shape[1:]) for x in features] == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_only_the_residual_net_has_shortcuts():
    """With the last norm of a block at zero, a block with a shortcut passes its input on and a plain one nothing."""
    for build, passes in ((resnet.build, True), (plainnet.build, False)):
        block = build(10, 32, width=4).stages[0][0].eval()
        nn.init.zeros_(block.bn2.weight)
        images = torch.rand(2, 4, 8, 8)
        out = block(images)
        assert torch.equal(out, images if passes else torch.zeros_like(images))


def test_multiscale_classifier_sees_every_stage():
    """The logits change with the output of each single stage."""
    model = resnet_multiscale.build(10, 32, width=4).eval()
    images = torch.randn(2, 3, 32, 32)
    features = model.stage_features(images)
    expected = model(images)
    for stage in range(4):
        changed = [x + 1 if i == stage else x for i, x in enumerate(features)]
        model.stage_features = lambda _, changed=changed: changed
        assert not torch.allclose(model(images), expected)


def test_fusion_width():
    model = resnet_multiscale.build(10, 32, width=4, fusion_width=12)
    assert model.fusion[0].weight.shape == (12, 4 + 8 + 16 + 32, 1, 1)
    assert model.head.in_features == 12
    assert resnet_multiscale.build(10, 32, width=4).head.in_features == 32


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
@pytest.mark.parametrize(("stem_stride", "grid"), [(1, 3), (2, 2)])
def test_speednet_grid_and_activation(activation, stem_stride, grid):
    model = speednet.build(10, 32, width=4, stem_stride=stem_stride, activation=activation)
    assert model.blocks(model.stem(torch.randn(2, 3, 32, 32))).shape == (2, 16, grid, grid)
    used = {type(layer) for layer in model.modules()} & set(speednet.ACTIVATIONS.values())
    assert used == {speednet.ACTIVATIONS[activation]}


def test_speednet_scales_its_logits():
    model = speednet.build(10, 32, width=4).eval()
    images = torch.randn(2, 3, 32, 32)
    features = model.blocks(model.stem(images)).amax((2, 3))
    torch.testing.assert_close(model(images), model.head(features) / 9)


def test_smallest_speednet_pictures():
    for stem_stride, smallest in ((1, 9), (2, 16)):
        speednet.build(10, smallest, width=4, stem_stride=stem_stride)(torch.randn(2, 3, smallest, smallest))
        with pytest.raises(ModelError, match=f"at least {smallest}"):
            speednet.build(10, smallest - 1, width=4, stem_stride=stem_stride)


@pytest.mark.parametrize(
    ("build", "args", "message"),
    [
        (vit.build, {"patch_size": 5}, "patch_size 5 does not divide image_size 32"),
        (vit.build, {"heads": 3}, "heads 3 does not divide width 256"),
    ],
)
def test_impossible_arguments(build, args, message):
    with pytest.raises(ModelError, match=message):
        build(10, 32, **args)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet", {"width": 0}, "greater than 0, found 0"),
        ("resnet_multiscale", {"fusion_width": -1}, "fusion_width: Input should be greater than 0"),
        ("speednet", {"norm_momentum": 0.0}, "norm_momentum: Input should be greater than 0"),
        ("vit", {"dropout": 1.0}, "dropout: Input should be less than 1"),
        ("vit", {"depth": 0}, "greater than 0, found 0"),
    ],
)
def test_impossible_arguments_of_a_recipe(name, args, message):
    """A recipe is checked against the types in the signature."""
    sections = {"optim": {"lr": 0.1}, "train": {"epochs": 1, "global_batch": 10}}
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"name": "x", "model": {"name": name, "args": args}, **sections})
