"""Parameter groups, layer-wise decay, and what the engine relies on in fused optimizers."""

import pytest
import torch
from torch import nn

from cifar_lab.errors import UsageError
from cifar_lab.models.families import resnet, timm_zoo, vit
from cifar_lab.optim.groups import make_optimizer, parameter_groups, set_lr
from cifar_lab.recipe.schema import Optim

SGD = Optim(name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
ADAMW = Optim(name="adamw", lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.05)


def small_vit(depth=3):
    return vit.build(10, 32, width=16, depth=depth, heads=2)


def test_settings_reach_the_optimizer():
    sgd = make_optimizer(resnet.build(10, 32, width=4), SGD)
    assert isinstance(sgd, torch.optim.SGD)
    for group in sgd.param_groups:
        assert (group["lr"], group["momentum"], group["nesterov"], group["fused"]) == (0.1, 0.9, True, True)
    adamw = make_optimizer(small_vit(), ADAMW)
    assert isinstance(adamw, torch.optim.AdamW)
    for group in adamw.param_groups:
        assert (group["lr"], group["betas"], group["eps"], group["fused"]) == (1e-3, (0.9, 0.95), 1e-6, True)


def test_every_parameter_is_in_one_group_in_a_fixed_order():
    model = resnet.build(10, 32, width=4)
    groups = parameter_groups(model, weight_decay=5e-4)
    named = dict(model.named_parameters())
    assert sorted(name for group in groups for name in group["names"]) == sorted(named)
    for group in groups:
        assert all(named[name] is p for name, p in zip(group["names"], group["params"], strict=True))
    again = parameter_groups(resnet.build(10, 32, width=4), weight_decay=5e-4)
    assert [group["names"] for group in again] == [group["names"] for group in groups]


def test_only_matrices_and_kernels_are_decayed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.norm = nn.LayerNorm(4)
            self.plane = nn.LayerNorm((2, 4), bias=False)
            self.scale = nn.Parameter(torch.ones(4))
            self.table = nn.Parameter(torch.ones(2, 4))
            self.other = nn.Parameter(torch.ones(2, 4))
            self.frozen = nn.Parameter(torch.ones(2, 4), requires_grad=False)
            self.gain = nn.Parameter(torch.tensor(1.0))
            self.unbias = nn.Parameter(torch.ones(2, 4))
            self.heads = nn.ParameterDict({"bias": torch.ones(2, 4)})

        def no_weight_decay(self):
            return {"tab*"}

    decayed, undecayed = parameter_groups(Net(), weight_decay=0.1)
    assert decayed["names"] == ["other", "unbias", "conv.weight"]
    assert decayed["weight_decay"] == 0.1
    assert undecayed["names"] == [
        *("scale", "table", "gain", "conv.bias", "norm.weight", "norm.bias", "plane.weight", "heads.bias"),
    ]
    assert undecayed["weight_decay"] == 0.0


def test_position_embeddings_are_not_decayed():
    for model in (small_vit(), timm_zoo.build(10, 32, arch="test_vit")):
        undecayed = parameter_groups(model, weight_decay=0.1)[1]["names"]
        assert "pos_embed" in undecayed


def test_no_trainable_parameters():
    with pytest.raises(UsageError, match="no trainable parameters"):
        parameter_groups(nn.ReLU(), weight_decay=0.0)


def test_groups_without_parameters_are_dropped():
    groups = parameter_groups(nn.Linear(2, 2, bias=False), weight_decay=0.1)
    assert [group["names"] for group in groups] == [["weight"]]


def test_layer_decay_of_our_vit_is_exact():
    """As timm's ViT: embeddings, one layer a block, the final norm with the last block, the classifier at full rate."""
    groups = parameter_groups(small_vit(depth=3), weight_decay=0.05, layer_decay=0.5)
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scale["pos_embed"] == scale["patch_embed.weight"] == 0.5**4
    for block in range(3):
        assert scale[f"blocks.{block}.attn.qkv.weight"] == scale[f"blocks.{block}.norm1.bias"] == 0.5 ** (3 - block)
    assert scale["norm.weight"] == 0.5
    assert scale["head.weight"] == scale["head.bias"] == 1.0


@pytest.mark.parametrize("arch", ["test_vit", "test_resnet", "test_efficientnet"])
def test_layer_decay_agrees_with_timm(arch):
    from timm.optim import param_groups_layer_decay

    model = timm_zoo.build(10, 32, arch=arch)
    ours = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(model, weight_decay=0.05, layer_decay=0.75)
        for p in group["params"]
    }
    skip = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(model, 0.05, skip, layer_decay=0.75)
        for p in group["params"]
    }
    assert ours == theirs


def test_layer_decay_needs_to_know_the_layers():
    with pytest.raises(UsageError, match=r"layer_decay needs a model with group_matcher.*ResidualNet has none"):
        parameter_groups(resnet.build(10, 32, width=4), weight_decay=0.0, layer_decay=0.9)


def test_set_lr_scales_each_group():
    optimizer = make_optimizer(small_vit(), ADAMW.model_copy(update={"layer_decay": 0.5}))
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3 * 0.5**k for k in range(5)}
    set_lr(optimizer, 0.2)
    assert all(group["lr"] == 0.2 * group["lr_scale"] for group in optimizer.param_groups)


@pytest.mark.parametrize("optim", [SGD, ADAMW], ids=lambda optim: optim.name)
def test_fused_optimizers_skip_on_found_inf_and_divide_by_grad_scale(optim):
    def train(scale, bad_step):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = make_optimizer(model, optim)
        for step in range(3):
            for p in model.parameters():
                p.grad = torch.full_like(p, 0.5 + step) * scale
            optimizer.grad_scale = torch.tensor(float(scale))
            optimizer.found_inf = torch.tensor(0.0)
            if bad_step and step == 1:
                before = [p.clone() for p in model.parameters()]
                state = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in model.parameters()]
                good = [p.grad.clone() for p in model.parameters()]
                for p in model.parameters():
                    p.grad.fill_(float("nan"))
                optimizer.found_inf = torch.tensor(1.0)
                optimizer.step()
                assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
                for p, old in zip(model.parameters(), state, strict=True):
                    assert old
                    assert all(torch.equal(optimizer.state[p][k], v) for k, v in old.items())
                for p, gradient in zip(model.parameters(), good, strict=True):
                    p.grad = gradient
                optimizer.found_inf = torch.tensor(0.0)
            optimizer.step()
        return model

    reference = train(1, bad_step=False)
    for scale, bad_step in ((1, True), (8, False), (8, True)):
        for a, b in zip(reference.parameters(), train(scale, bad_step).parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
