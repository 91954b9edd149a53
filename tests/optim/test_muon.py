"""Muon against PyTorch's own, its SGD part against torch.optim.SGD, and what the engine relies on."""

import pytest
import torch
from torch import nn
from torch.optim._muon import DEFAULT_A, DEFAULT_B, DEFAULT_C, _zeropower_via_newtonschulz

from cifar_lab.errors import UsageError
from cifar_lab.models.families import speednet, vit
from cifar_lab.optim.groups import make_optimizer
from cifar_lab.optim.muon import EPS, Muon, orthogonalise
from cifar_lab.recipe.schema import Optim

MUON = Optim(
    name="muon", lr=0.2, momentum=0.6, nesterov=True, head_lr=2.0, bias_lr=0.05, rest_momentum=0.8, weight_decay=1e-3
)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (64, 4, 3, 3), (16, 16, 1, 1)])
def test_the_orthogonal_update_is_pytorchs(shape):
    torch.manual_seed(0)
    kernel = torch.randn(shape)
    published = (DEFAULT_A, DEFAULT_B, DEFAULT_C)
    expected = _zeropower_via_newtonschulz(kernel.flatten(1), published, 5, EPS).float().view(shape)
    torch.testing.assert_close(orthogonalise(kernel, steps=5), expected, rtol=0.05, atol=0.02)  # theirs is in bfloat16
    exact = kernel.flatten(1).double()
    exact = exact / exact.norm()
    for _ in range(5):
        gram = exact @ exact.T
        exact = DEFAULT_A * exact + (DEFAULT_B * gram + DEFAULT_C * gram @ gram) @ exact
    torch.testing.assert_close(orthogonalise(kernel, steps=5), exact.float().view(shape), rtol=1e-3, atol=1e-4)
    values = torch.linalg.svdvals(orthogonalise(kernel, steps=5).flatten(1))
    assert values.min() > 0.3 and values.max() < 1.3
    strided = kernel.to(memory_format=torch.channels_last)
    torch.testing.assert_close(orthogonalise(strided, steps=5), orthogonalise(kernel, steps=5), rtol=1e-4, atol=1e-5)


def test_what_is_no_kernel_takes_sgd_steps():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    settings = {"lr": 0.1, "momentum": 0.8, "nesterov": True}
    groups = [{"params": list(ours.parameters()), "weight_decay": 0.01}]
    optimizers = [Muon(groups, **settings), torch.optim.SGD(theirs.parameters(), weight_decay=0.01, **settings)]
    for _ in range(4):
        images = torch.randn(7, 5)
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            layer(images).square().mean().backward()
        for parameter in ours.parameters():
            parameter.grad *= 4
        optimizers[0].grad_scale = torch.tensor(4.0)  # of the gradient, not of its weight decay
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_kernel_is_normalised_and_moved_by_the_orthogonal_momentum():
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(6, 2, 3, 3))
    optimizer = Muon([{"params": [kernel], "orthogonal": True}], lr=0.3, momentum=0.5, nesterov=True)
    expected, momentum = kernel.detach().clone(), torch.zeros_like(kernel)
    for _ in range(3):
        kernel.grad = torch.randn_like(kernel)
        momentum = 0.5 * momentum + kernel.grad
        expected = expected * 6**0.5 / expected.norm() - 0.3 * orthogonalise(kernel.grad + 0.5 * momentum)
        optimizer.step()
    torch.testing.assert_close(kernel.detach(), expected)
    torch.testing.assert_close(optimizer.state[kernel]["momentum_buffer"], momentum)


def test_clipping_and_skipping_happen_in_the_step():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    groups = [
        {"params": [net[0].weight], "orthogonal": True},
        {"params": [net[2].weight, net[2].bias, net[0].bias]},
    ]
    optimizer = Muon(groups, lr=0.1, momentum=0.9, nesterov=False)
    net(torch.randn(5, 3, 3, 3)).sum().backward()
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(0.0)
    optimizer.step()
    buffer = optimizer.state[net[2].weight]["momentum_buffer"]
    torch.testing.assert_close(buffer, net[2].weight.grad / 4)
    before = [t.clone() for t in [*net.parameters(), buffer]]
    net[0].weight.grad.fill_(float("nan"))
    net[2].weight.grad.fill_(float("inf"))
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, [*net.parameters(), buffer], strict=True))


def test_groups_of_a_net():
    net = speednet.build(10, 32, width=4, whiten=True, scaled_norms=False)
    optimizer = make_optimizer(net, MUON)
    found = {
        name: (group["orthogonal"], group["lr"], group["momentum"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in group["names"]
    }
    assert found.keys() == {name for name, p in net.named_parameters() if p.requires_grad}
    assert found["blocks.0.0.weight"] == (True, 0.2, 0.6, 0.0)
    assert found["head.weight"] == pytest.approx((False, 2.0, 0.8, 1e-3))
    assert found["blocks.0.2.bias"] == pytest.approx((False, 0.05, 0.8, 0.0))
    # Without decay too the head is no bias.
    undecayed = make_optimizer(net, Optim(name="muon", lr=0.2, head_lr=2.0, bias_lr=0.05))
    rates = {name: group["lr"] for group in undecayed.param_groups for name in group["names"]}
    assert (rates["head.weight"], rates["blocks.0.2.bias"]) == pytest.approx((2.0, 0.05))
    plain = make_optimizer(speednet.build(10, 32, width=4), Optim(name="muon", lr=0.2))
    assert {group["lr"] for group in plain.param_groups} == {0.2}


def test_muon_is_refused_where_most_of_the_parameters_would_take_sgd_steps():
    with pytest.raises(UsageError, match=r"these are 0\.0 % of the parameters that Linear trains, less than half: use"):
        make_optimizer(nn.Linear(3, 3), MUON)
    with pytest.raises(
        UsageError, match=r"0\.3 % of the parameters that VisionTransformer trains, .*: use adamw or sgd"
    ):
        make_optimizer(vit.build(10, 32), MUON)
    conv, head = nn.Conv2d(2, 4, 3, bias=False), nn.Linear(8, 9, bias=False)  # 72 parameters each
    assert make_optimizer(nn.Sequential(conv, head), MUON)
    with pytest.raises(UsageError, match=r"48\.6 %"):
        make_optimizer(nn.Sequential(conv, head, nn.LayerNorm(2)), MUON)
    head.requires_grad_(False)  # what does not train does not count
    assert make_optimizer(nn.Sequential(conv, head, nn.LayerNorm(2)), MUON)


def test_kernels_with_groups_are_no_matrices():
    depthwise, grouped = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2)
    net = nn.Sequential(depthwise, grouped, nn.Conv2d(8, 64, 3))
    optimizer = make_optimizer(net, MUON)
    taken = [name for group in optimizer.param_groups if group["orthogonal"] for name in group["names"]]
    assert taken == ["2.weight"]
    (rest,) = (group for group in optimizer.param_groups if "0.weight" in group["names"])
    assert rest["weight_decay"] == MUON.weight_decay and "1.weight" in rest["names"]
