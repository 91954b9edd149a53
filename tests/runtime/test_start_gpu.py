"""What a start says of the GPU that it finds, before anything is loaded."""

from __future__ import annotations

import logging

import pytest
import torch
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.nvidia import PYPI
from cifar_lab.runtime import start
from cifar_lab.runtime.world import World


@pytest.fixture
def on_gpu(monkeypatch):
    """A world that is told to be on a GPU of a compute capability; there is none here to be asked."""

    def make(capability: tuple[int, int], *, rank: int = 0, cuda: str | None = "13.0") -> None:
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(PYPI))
        world = World(rank, 2, torch.device("cuda", rank))
        monkeypatch.setattr(start.World, "start", lambda timeout: world)

    return make


def test_a_wheel_without_kernels_is_refused(on_gpu, monkeypatch) -> None:
    """On every rank: none of them can take part in a collective."""
    left: list[bool] = []
    monkeypatch.setattr(World, "close", lambda world, *, abort=False: left.append(abort))
    for rank in (0, 1):
        on_gpu((7, 0), rank=rank)
        for recipe in (None, parse_recipe(small())):
            with pytest.raises(UsageError, match=r"has no kernels for Tesla \(compute capability 7.0\).*cu126"):
                start.start_world(None, recipe)
    assert left == [True] * 4, "nobody waits for a process that cannot train"
    on_gpu((7, 0), cuda=None)  # ROCm's own numbers
    assert start.start_world().rank == 0


def test_emulated_bf16_is_told_once(on_gpu, caplog) -> None:
    recipe = parse_recipe(small(train__precision="bf16"))
    with caplog.at_level(logging.WARNING):
        for capability, rank, count in (((7, 5), 0, 1), ((7, 5), 1, 0), ((8, 0), 0, 0)):
            caplog.clear()
            on_gpu(capability, rank=rank)
            start.start_world(None, recipe)
            assert len(caplog.messages) == count
            assert all("computes bf16 in software" in message for message in caplog.messages)
        caplog.clear()
        on_gpu((7, 5))
        start.start_world(None, parse_recipe(small()))
        assert caplog.messages == []


def test_what_cannot_be_compiled_is_refused(on_gpu, monkeypatch) -> None:
    on_gpu((6, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_60"])
    with pytest.raises(UsageError, match=r"train\.compile: Triton makes no kernels"):
        start.start_world(None, parse_recipe(small(train__compile=True)))
