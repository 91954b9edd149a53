"""The nearest set-up that works, for one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import GIB, GPUS, LINKS, PlanError
from cifar_lab.planning.memory import Pictures
from cifar_lab.planning.network import Topology
from cifar_lab.planning.options import Option, Setup, fastest, options
from cifar_lab.recipe import Recipe

MAX_GPUS_OF_A_NODE = 8


def nearest_that_works(
    recipe: Recipe, footprint: Footprint, pictures: Pictures, setup: Setup, found: list[Option]
) -> str:
    """One message: what is missing, and which change helps, the smallest first."""
    least = min(found, key=lambda option: option.memory.total)
    lines = [f"{recipe.name} does not fit on {_told(setup)}: {_with(least)} {least.problem}"]
    for words, other in _neighbours(recipe, setup):
        try:
            best = fastest(options(recipe, footprint, pictures, other))
        except PlanError:
            continue
        if best is not None:
            need = best.memory.total / GIB
            lines.append(f"what works: {words}, {_with(best)} (micro-batch {best.micro_batch}, {need:.1f} GiB)")
            if other is setup or len(lines) == 3:
                break
    if len(lines) == 1:
        lines.append("nothing in the table of GPUs holds it: make data.image_size or the model smaller")
    return "\n".join(lines)


def _neighbours(recipe: Recipe, setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Set-ups by how little they change: all strategies, more GPUs, larger ones."""
    yield f"{_told(setup)}, any strategy", setup
    topology = setup.topology
    for gpus in range(topology.gpus + 1, MAX_GPUS_OF_A_NODE + 1):
        if recipe.train.global_batch % (gpus * topology.nodes) == 0 and setup.device == "cuda":
            other = replace(setup, topology=replace(topology, gpus=gpus))
            yield _told(other), other
    for gpu in sorted(GPUS.values(), key=lambda gpu: gpu.memory):
        if gpu.memory > setup.gpu.memory:
            inside = replace(topology, inside=LINKS[gpu.link])
            other = replace(setup, gpu=gpu, topology=inside, device="cuda")
            yield _told(other), other


def _told(setup: Setup) -> str:
    topology: Topology = setup.topology
    nodes = f"{topology.nodes} nodes of " if topology.nodes > 1 else ""
    return f"{nodes}{topology.gpus} x {setup.gpu.name}"


def _with(option: Option) -> str:
    return option.strategy + (" with gradient checkpointing" if option.grad_checkpointing else "")
