"""What depends on the kind of device follows it, for kinds that this machine does not have."""

from __future__ import annotations

import pytest
import torch
from accelerate import DistributedType, PartialState
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.models.factory import build_model
from cifar_lab.profiling.parts import Parts
from cifar_lab.recipe import parse_recipe
from cifar_lab.runtime import device, world
from cifar_lab.runtime.make import make_engine
from cifar_lab.runtime.plain import PlainEngine
from cifar_lab.runtime.world import World


class Asked(Exception):  # noqa: N818  # no error: it ends what was called
    """What Accelerate was asked for."""


@pytest.fixture
def kind(request, monkeypatch):
    """A machine whose accelerators are of this kind, and two processes."""

    def ask(**options):
        raise Asked(options["backend"])

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device(request.param))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(world, "PartialState", ask)
    monkeypatch.setenv("WORLD_SIZE", "2")
    return request.param


@pytest.mark.parametrize(
    ("kind", "backend"), [("cuda", "nccl"), ("xpu", "xccl")], indirect=["kind"], ids=["cuda", "xpu"]
)
def test_the_backend_follows_the_device(kind, backend):
    with pytest.raises(Asked) as asked:
        World.start()
    assert asked.value.args == (backend,)


@pytest.mark.parametrize("kind", ["mps"], indirect=True)
def test_several_processes_are_refused_where_they_cannot_talk(kind):
    with pytest.raises(UsageError, match=r"no collectives on mps: start one process, or .* ACCELERATE_USE_CPU=true"):
        World.start()


def test_several_xpus_are_plain_data_parallel(monkeypatch):
    """Accelerate calls them MULTI_XPU."""
    recipe, several = parse_recipe(small()), World.start()
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.MULTI_XPU)
    engine = make_engine(several, recipe, build_model(recipe.model, 10, 16, seed=0), 1)
    assert engine.accelerator.distributed_type == DistributedType.MULTI_XPU
    assert isinstance(engine, PlainEngine)


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_name_and_peak_memory_are_the_devices(monkeypatch, kind):
    """And not those of the processor, which a run on an XPU recorded."""
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(module, "max_memory_allocated", lambda device: 1000 + device.index)
    second = torch.device(kind, 1)
    assert (device.name(second), device.peak_memory(second)) == ("card 1", 1001)


def test_name_and_peak_memory_on_metal(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4")
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 77)
    metal = torch.device("mps")
    assert (device.name(metal), device.peak_memory(metal)) == ("Apple M4 (mps)", 77)


def test_on_a_cpu_memory_is_what_is_resident():
    cpu = torch.device("cpu")
    before = device.peak_memory(cpu)
    held = torch.ones(2**26)  # 256 MiB
    assert device.name(cpu) == "cpu"
    assert device.peak_memory(cpu) >= max(before, held.nbytes)


@pytest.mark.parametrize(("kind", "waits"), [("cuda", 3), ("xpu", 3), ("mps", 3), ("cpu", 0)])
def test_a_profile_waits_at_each_mark_for_what_the_device_was_given(monkeypatch, kind, waits):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    parts = Parts(torch.device(kind))
    with parts.part("data"):
        pass
    parts.next_step()
    assert waited == [torch.device(kind)] * waits
