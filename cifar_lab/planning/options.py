"""Every way to run a recipe on a set-up: strategy by gradient checkpointing, each with the largest micro-batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import GIB, Gpu, PlanError
from cifar_lab.planning.memory import STRATEGIES, Memory, Pictures, Training, memory
from cifar_lab.planning.network import Topology, Traffic, traffic
from cifar_lab.planning.timing import Timing, timing
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import mixes
from cifar_lab.recipe.support import unsupported

# Part of a device's memory that a plan may fill.
FILL = 0.95
# Bytes of a machine's memory that each process may take for offloading: assumed, as nodes of 1 TiB with 8 GPUs have.
HOST_MEMORY = 120 * GIB
# Strategies of one process, which shards nothing, and of several.
ALONE = ("single", "zero3_offload")
TOGETHER = ("ddp", "zero1", "zero2", "zero3", "zero3_offload")


@dataclass(frozen=True)
class Setup:
    """Where a recipe is to run; `memory` is what one process has, in bytes; `device` is "cuda" or "cpu"."""

    gpu: Gpu
    topology: Topology
    utilisation: float
    device: str = "cuda"

    @property
    def memory(self) -> int:
        """Bytes that a plan may use on one device."""
        return int(FILL * self.gpu.memory)


@dataclass(frozen=True)
class Option:
    """One way to run: `problem` says why it cannot be, and the memory is then that of the smallest micro-batch."""

    strategy: str
    grad_checkpointing: bool
    micro_batch: int
    accumulation_steps: int
    eval_batch: int
    memory: Memory
    traffic: Traffic
    timing: Timing
    problem: str | None


def options(
    recipe: Recipe,
    footprint: Footprint,
    pictures: Pictures,
    setup: Setup,
    *,
    strategies: tuple[str, ...] = STRATEGIES,
    micro_batch: int | None = None,
) -> list[Option]:
    """All combinations that make sense, with `micro_batch` alone if given; PlanError where it does not divide."""
    world = setup.topology.world_size
    candidates = divisors(recipe, world, micro_batch)
    possible = ALONE if world == 1 else TOGETHER
    meaningful = [strategy for strategy in strategies if strategy in possible]
    if not meaningful:
        processes = "one process" if world == 1 else f"{world} processes"
        raise PlanError(f"--strategy {strategies[0]} is not for {processes}: use {' or '.join(possible)}")
    return [
        _option(recipe, footprint, pictures, setup, strategy, mode == "checkpointed", candidates)
        for strategy in meaningful
        for mode in footprint.passes
    ]


def divisors(recipe: Recipe, world_size: int, micro_batch: int | None = None) -> list[int]:
    """Micro-batches that Schedule can take, ascending: up to the recipe's, or `micro_batch` alone. Raises PlanError."""
    share, unit = recipe.train.global_batch // world_size, 2 if mixes(recipe.data.augment) else 1
    parts = [b for b in range(unit, share + 1, unit) if share % b == 0]
    if micro_batch is None:
        return [b for b in parts if b <= (recipe.train.micro_batch or share)]
    if micro_batch not in parts:
        near = sorted(sorted(parts, key=lambda b: abs(b - micro_batch))[:2])
        who = "the one process" if world_size == 1 else f"each of {world_size} processes"
        pairs = ", in pairs for mixing," if unit == 2 else ""
        raise PlanError(
            f"--micro-batch {micro_batch} does not divide the {share} images{pairs} that {who} has "
            f"of train.global_batch {recipe.train.global_batch}: use {' or '.join(map(str, near))}"
        )
    return [micro_batch]


def fastest(found: list[Option]) -> Option | None:
    """Of those that fit the one with the shortest step; of equal ones the simplest. None if none fits."""
    fitting = [option for option in found if option.problem is None]
    # A percent is less than what the estimates are worth; larger micro-batches and simpler strategies win within it.
    rank = {strategy: position for position, strategy in enumerate(STRATEGIES)}
    best = min((option.timing.step for option in fitting), default=0.0)
    near = [option for option in fitting if option.timing.step <= 1.02 * best]
    return min(near, key=lambda o: (rank[o.strategy], o.grad_checkpointing), default=None)


def _option(
    recipe: Recipe,
    footprint: Footprint,
    pictures: Pictures,
    setup: Setup,
    strategy: str,
    checkpointing: bool,
    candidates: list[int],
) -> Option:
    share = recipe.train.global_batch // setup.topology.world_size

    def at(batch: int, eval_batch: int) -> Memory:
        return memory(
            footprint,
            training_of(recipe, share > batch, checkpointing),
            replace(pictures, eval_batch=eval_batch),
            strategy=strategy,
            world_size=setup.topology.world_size,
            micro_batch=batch,
            device=setup.device,
        )

    # An evaluation may be as large as the recipe says, but never takes room from training.
    fitting = [b for b in candidates if at(b, min(b, pictures.eval_batch)).total <= setup.memory]
    batch = fitting[-1] if fitting else candidates[0]
    evals = [e for e in halves(pictures.eval_batch) if at(batch, e).total <= setup.memory]
    eval_batch = evals[0] if evals else min(batch, pictures.eval_batch)
    needs = at(batch, eval_batch)
    refused = unsupported(recipe, device=setup.device, strategy=strategy)
    problem = "; ".join(refused) or None
    if not fitting and problem is None:
        problem = f"needs {needs.total / GIB:.1f} GiB at micro-batch {batch}, {setup.memory / GIB:.1f} are usable"
    if needs.host > HOST_MEMORY and problem is None:
        problem = f"needs {needs.host / GIB:.0f} GiB of host memory a process, {HOST_MEMORY / GIB:.0f} are assumed"
    sent = traffic(
        footprint,
        strategy,
        setup.topology,
        precision=recipe.train.precision,
        compressed=recipe.train.grad_compression is not None,
        accumulation_steps=share // batch,
    )
    return Option(
        strategy=strategy,
        grad_checkpointing=checkpointing,
        micro_batch=batch,
        accumulation_steps=share // batch,
        eval_batch=eval_batch,
        memory=needs,
        traffic=sent,
        timing=timing(
            footprint,
            setup.gpu,
            setup.topology,
            sent,
            strategy=strategy,
            global_batch=recipe.train.global_batch,
            precision=recipe.train.precision,
            moments=num_moments(recipe),
            has_ema=recipe.train.ema_decay is not None,
            checkpointing=checkpointing,
            utilisation=setup.utilisation,
        ),
        problem=problem,
    )


def training_of(recipe: Recipe, accumulates: bool, checkpointing: bool) -> Training:
    """What of a recipe decides on memory."""
    train = recipe.train
    return Training(train.precision, num_moments(recipe), train.ema_decay is not None, accumulates, checkpointing)


def num_moments(recipe: Recipe) -> int:
    """fp32 copies of the parameters that the optimizer keeps."""
    if recipe.optim.name == "adamw":
        return 2
    return 1 if recipe.optim.momentum or recipe.optim.name == "muon" else 0


def halves(batch: int) -> list[int]:
    """`batch`, its half, its quarter, ... 1."""
    found = [batch]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found
