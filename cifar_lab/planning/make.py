"""A plan: every way to run a recipe on a set-up, each with the largest micro-batch that fits."""

import itertools
import os
from dataclasses import dataclass, replace

from cifar_lab.data.sizes import DataSizes
from cifar_lab.errors import UsageError
from cifar_lab.planning.footprint import Footprint, known_sizes, model_footprint
from cifar_lab.planning.hardware import DEFAULT_NODE_LINK, GIB, UTILISATION, Gpu, Setup, find_gpu, find_link
from cifar_lab.planning.memory import STRATEGIES, Layout, Memory, memory
from cifar_lab.planning.speed import Timing, Traffic, timing, traffic
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule, micro_batches
from cifar_lab.recipe.support import unsupported

# Bytes of a machine's memory that each process may take for offloading: assumed, as nodes of 1 TiB with 8 GPUs have.
HOST_MEMORY = 120 * GIB
# Strategies of one process, which shards nothing, and of several.
ALONE = ("single", "zero3_offload")
TOGETHER = ("ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload")


@dataclass(frozen=True)
class Option:
    """One way to run: `problem` says why it cannot be, and the memory is then that of the smallest micro-batch."""

    layout: Layout
    accumulation_steps: int
    memory: Memory
    traffic: Traffic
    timing: Timing
    problem: str | None

    def __str__(self) -> str:
        """Its strategy as a user says it."""
        return self.layout.strategy + (" with gradient checkpointing" if self.layout.checkpointing else "")


@dataclass(frozen=True)
class Plan:
    """A recipe on a set-up, and all ways to run it there."""

    recipe: Recipe
    setup: Setup
    sizes: DataSizes
    footprint: Footprint
    schedule: Schedule
    options: list[Option]


def make_setup(
    gpus: int, gpu: str, nodes: int = 1, link: str = DEFAULT_NODE_LINK, utilisation: float = UTILISATION
) -> Setup:
    """The set-up of these options. Raises UsageError."""
    if not 0 < utilisation <= 1:
        raise UsageError(f"--mfu {utilisation:g}: it is a part of the peak rate, above 0 and at most 1, such as 0.4")
    device = "cpu" if gpu == "cpu" else "cuda"
    found = _this_cpu(gpus) if device == "cpu" else find_gpu(gpu)
    return Setup(found, gpus, nodes, find_link(link), utilisation, device)


def make_plan(recipe: Recipe, setup: Setup, strategy: str = "all", *, measure: bool = True) -> Plan:
    """All options for a recipe on a set-up. Raises UsageError for what cannot be laid out.

    Without `measure` it answers at once: a model that was not measured before is a UsageError.
    """
    sizes = known_sizes(recipe)
    schedule = Schedule.make(recipe, sizes.num_train, setup.world_size)
    footprint = model_footprint(recipe, sizes, measure=measure)
    strategies = STRATEGIES if strategy == "all" else (strategy,)
    found = options(recipe, footprint, sizes, setup, strategies=strategies)
    return Plan(recipe, setup, sizes, footprint, schedule, found)


def _this_cpu(processes: int) -> Gpu:
    """One of `processes` on this machine; its rates are guesses."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = (os.cpu_count() or 1) / processes
    return Gpu("cpu", memory // processes / GIB, bf16=None, fp32=0.04 * cores, bandwidth=10, link="pcie3")


def options(
    recipe: Recipe,
    footprint: Footprint,
    sizes: DataSizes,
    setup: Setup,
    *,
    strategies: tuple[str, ...] = STRATEGIES,
) -> list[Option]:
    """All combinations that make sense. Raises UsageError where the batch does not divide over the processes."""
    world = setup.world_size
    candidates = micro_batches(recipe, world)
    possible = ALONE if world == 1 else TOGETHER
    meaningful = [strategy for strategy in strategies if strategy in possible]
    if not meaningful:
        processes = "one process" if world == 1 else f"{world} processes"
        raise UsageError(f"--strategy {strategies[0]} is not for {processes}: use {' or '.join(possible)}")
    found = []
    for strategy, mode in itertools.product(meaningful, footprint.passes):
        eval_batch = min(candidates[0], recipe.eval.batch)
        smallest = Layout(strategy, mode == "checkpointed", world, candidates[0], eval_batch, setup.device)
        fitting = largest_that_fits(recipe, footprint, sizes, smallest, candidates, setup.memory)
        layout = fitting or smallest
        needs = memory(footprint, recipe, sizes, layout)
        accumulation_steps = layout.accumulation_steps(recipe)
        problems = unsupported(recipe, device=setup.device, strategy=strategy, accumulation_steps=accumulation_steps)
        problem = "; ".join(problems) or None
        if fitting is None and problem is None:
            batch, usable = layout.micro_batch, setup.memory / GIB
            problem = f"needs {needs.total / GIB:.1f} GiB at micro-batch {batch}, {usable:.1f} are usable"
        if needs.host > HOST_MEMORY and problem is None:
            problem = f"needs {needs.host / GIB:.0f} GiB of host memory a process, {HOST_MEMORY / GIB:.0f} are assumed"
        sent = traffic(footprint, recipe, layout, setup)
        seconds = timing(footprint, recipe, layout, setup, sent)
        found.append(Option(layout, accumulation_steps, needs, sent, seconds, problem))
    return found


def largest_that_fits(
    recipe: Recipe, footprint: Footprint, sizes: DataSizes, layout: Layout, candidates: list[int], usable: int
) -> Layout | None:
    """`layout` with the largest micro-batch of `candidates` that fits, and the largest evaluation beside it."""

    def at(batch: int, eval_batch: int) -> Layout | None:
        found = replace(layout, micro_batch=batch, eval_batch=eval_batch)
        return found if memory(footprint, recipe, sizes, found).total <= usable else None

    # An evaluation may be as large as the recipe says, but never takes room from training.
    smallest = next(filter(None, (at(b, min(b, recipe.eval.batch)) for b in reversed(candidates))), None)
    if smallest is None:
        return None
    halves = (recipe.eval.batch >> n for n in range(recipe.eval.batch.bit_length()))
    return next(filter(None, (at(smallest.micro_batch, e) for e in halves)), smallest)


def fastest(found: list[Option]) -> Option | None:
    """Of those that fit the one with the shortest step; of equal ones the simplest. None if none fits."""
    fitting = [option for option in found if option.problem is None]
    # A percent is less than what the estimates are worth; larger micro-batches and simpler strategies win within it.
    best = min((option.timing.step for option in fitting), default=0.0)
    near = [option for option in fitting if option.timing.step <= 1.02 * best]
    return min(near, key=lambda o: (STRATEGIES.index(o.layout.strategy), o.layout.checkpointing), default=None)
