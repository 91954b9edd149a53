"""A plan: every way to run a recipe on a set-up, from the names that users give to both."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cifar_lab.data.sizes import DataSizes
from cifar_lab.errors import UsageError
from cifar_lab.planning.footprint import Footprint, kept_footprint, known_sizes, model_footprint
from cifar_lab.planning.hardware import DEFAULT_NODE_LINK, GIB, UTILISATION, Gpu, Setup, find_gpu, find_link
from cifar_lab.planning.memory import STRATEGIES
from cifar_lab.planning.options import Option, divisors, fastest, options
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule


@dataclass(frozen=True)
class Plan:
    """A recipe on a set-up, and all ways to run it there."""

    recipe: Recipe
    setup: Setup
    sizes: DataSizes
    footprint: Footprint
    schedule: Schedule
    options: list[Option]

    @property
    def fastest(self) -> Option | None:
        """The one to take; None where none fits."""
        return fastest(self.options)


def make_setup(
    gpus: int, gpu: str, nodes: int = 1, link: str = DEFAULT_NODE_LINK, utilisation: float = UTILISATION
) -> Setup:
    """The set-up of these options. Raises UsageError."""
    for name, value in (("--gpus", gpus), ("--nodes", nodes)):
        if value < 1:
            raise UsageError(f"{name} {value}: there must be at least 1; try {name} 1")
    if not 0 < utilisation <= 1:
        raise UsageError(f"--mfu {utilisation:g}: it is a part of the peak rate, above 0 and at most 1, such as 0.4")
    device = "cpu" if gpu == "cpu" else "cuda"
    found = _this_cpu(gpus) if device == "cpu" else find_gpu(gpu)
    return Setup(found, gpus, nodes, find_link(link), utilisation, device)


def make_plan(
    recipe: Recipe, setup: Setup, strategy: str = "all", micro_batch: int | None = None, *, measure: bool = True
) -> Plan:
    """All options for a recipe on a set-up. Raises UsageError for what cannot be laid out.

    Without `measure` it answers at once: a model that was not measured before is a UsageError.
    """
    sizes = known_sizes(recipe)
    schedule = Schedule.make(recipe, sizes.num_train, setup.world_size)
    divisors(recipe, setup.world_size, micro_batch)  # before anything is measured
    footprint = model_footprint(recipe, sizes) if measure else kept_footprint(recipe, sizes)
    if footprint is None:
        raise UsageError(f"{recipe.name}: its model was not measured yet; `cifar-lab plan` does")
    strategies = STRATEGIES if strategy == "all" else (strategy,)
    found = options(recipe, footprint, sizes, setup, strategies=strategies, micro_batch=micro_batch)
    return Plan(recipe, setup, sizes, footprint, schedule, found)


def _this_cpu(processes: int) -> Gpu:
    """One of `processes` on this machine; its rates are guesses."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = (os.cpu_count() or 1) / processes
    return Gpu("cpu", memory // processes / GIB, bf16=None, fp32=0.04 * cores, bandwidth=10, link="pcie3")
