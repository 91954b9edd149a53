"""Curves, and what is measured without memory against what autograd and formulas say."""

from __future__ import annotations

import json
import random
from dataclasses import asdict

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cifar_lab.models.factory import build_model, num_parameters
from cifar_lab.planning.activations import BATCHES, AllocationLog, footprint
from cifar_lab.planning.footprint import Curve, Footprint
from cifar_lab.recipe.schema import Model

VIT = Model(name="vit", args={"width": 64, "depth": 3, "heads": 2})
FP32 = 4


@pytest.fixture(scope="module")
def vit() -> Footprint:
    return footprint(VIT, 10, 32, "fp32")


def test_curve_is_the_largest_of_its_lines() -> None:
    draw = random.Random(0)
    for _ in range(100):
        lines = [(draw.uniform(-50, 1000), draw.choice([0, draw.uniform(0, 100)])) for _ in range(draw.randint(1, 12))]
        curve = Curve.of(lines)
        for batch in (1, 2, 3, 7, 20, 1000):
            assert curve.at(batch) == round(max(c + s * batch for c, s in lines))
    # Parallel to the axis, and one that another exceeds in both.
    assert Curve.of([(10, 0), (0, 2), (0, 3)]).lines == ((0, 3), (10, 0))
    assert Curve.of([(10, 0), (10, 3)]).lines == ((10, 3),)


def test_allocations_of_known_operations() -> None:
    with FakeTensorMode():
        weight, x = nn.Parameter(torch.empty(100, 50)), torch.empty(20, 50)
        weight.register_post_accumulate_grad_hook(lambda p: log.mark_gradient(p))
        log = AllocationLog([weight, x])
        with log:
            y = x @ weight.t()  # 20 x 100, freed below
            loss = y.square().sum()
            del y
            loss.backward()
            weight.detach()  # one more moment
    activations = [a for a, _ in log.moments]
    assert max(activations) >= 2 * 20 * 100 * FP32
    assert log.moments[-1][1] == 100 * 50 * FP32  # the gradient, in its own column
    assert activations[-1] <= 3 * FP32  # scalars
    assert activations[0] == 0  # a view allocates nothing


def test_measured_activations_are_those_that_autograd_saves(vit: Footprint) -> None:
    """A second method: the storages that saved-tensor hooks see in a real forward pass."""
    model, batch = build_model(VIT, 10, 32, seed=0), 6
    known = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.randn(batch, 3, 32, 32)
    known.add(images.untyped_storage().data_ptr())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(images).sum()
    assert loss.requires_grad
    assert batch not in BATCHES
    peak = vit.passes["plain"].activations.at(batch)
    assert sum(saved.values()) <= peak <= 1.15 * sum(saved.values())


def test_elements_and_buffers(vit: Footprint) -> None:
    model = build_model(VIT, 10, 32, seed=0)
    assert vit.num_parameters == vit.num_trainable == num_parameters(model)
    assert vit.num_tensors == len(list(model.parameters()))
    assert vit.largest == 3 * 64 * 64
    assert vit.small == vit.num_parameters  # all below 100,000
    assert vit.buffer_bytes == 0
    # 2 FLOPs a multiply-add, every weight of a linear layer once for each of 64 tokens, plus attention.
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)) - 640
    assert 1 < vit.flops_per_image / (2 * 64 * linear) < 1.4


def test_gradients_and_checkpointing(vit: Footprint) -> None:
    plain, checkpointed = vit.passes["plain"], vit.passes["checkpointed"]
    gradients = FP32 * vit.num_trainable
    for curves in (plain, checkpointed):
        assert curves.with_gradients.at(1) >= gradients
        for batch in (1, 8, 64):
            whole = curves.with_gradients.at(batch)
            assert curves.activations.at(batch) <= whole <= curves.activations.at(batch) + gradients
    # Gradients are not counted as activations: those of one recomputed image are fewer.
    assert checkpointed.activations.at(1) < 0.9 * gradients
    assert checkpointed.activations.at(64) < 0.55 * plain.activations.at(64)
    assert vit.evaluation.at(64) < 0.3 * plain.activations.at(64)


def test_bf16_halves_what_grows_with_the_batch(vit: Footprint) -> None:
    half = footprint(VIT, 10, 32, "bf16")
    assert footprint(VIT, 10, 32, "fp16") == half
    # The residual stream stays fp32; casts of the weights are there whatever the batch.
    assert 0.5 < half.passes["plain"].activations.at(512) / vit.passes["plain"].activations.at(512) < 0.8
    assert half.passes["plain"].activations.at(1) > 2 * 0.9 * vit.num_parameters


def test_json_and_back(vit: Footprint) -> None:
    assert TypeAdapter(Footprint).validate_python(json.loads(json.dumps(asdict(vit)))) == vit


def test_no_checkpointing_where_the_model_has_none() -> None:
    net = footprint(Model(name="resnet", args={"width": 4}), 10, 8, "fp32")
    assert set(net.passes) == {"plain"}
    model = build_model(Model(name="resnet", args={"width": 4}), 10, 8, seed=0)
    assert net.buffer_bytes == sum(buffer.nbytes for buffer in model.buffers())


def test_no_checkpointing_where_timm_refuses_it() -> None:
    net = footprint(Model(name="timm_zoo", args={"arch": "hrnet_w18_small"}), 10, 32, "fp32")
    assert set(net.passes) == {"plain"}
