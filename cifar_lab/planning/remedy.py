"""What helps where a recipe does not fit: the nearest set-up that works, and what a run that starts is told."""

from collections.abc import Iterator
from dataclasses import replace

from cifar_lab.data.sizes import DataSizes
from cifar_lab.errors import UserError
from cifar_lab.planning.describe import changes
from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import GIB, GPUS, Gpu, Setup
from cifar_lab.planning.make import Option, fastest, make_plan, options
from cifar_lab.recipe import Recipe

MAX_GPUS_OF_A_NODE = 8


def nearest_that_works(
    recipe: Recipe, footprint: Footprint, sizes: DataSizes, setup: Setup, found: list[Option]
) -> str:
    """One message: what is missing, and which change helps, the smallest first."""
    least = min(found, key=lambda option: option.memory.total)
    lines = [f"{recipe.name} does not fit on {setup}: {least} {least.problem}"]
    for other in _neighbours(setup):
        try:
            best = fastest(options(recipe, footprint, sizes, other))
        except UserError:  # the batch does not divide there
            continue
        if best is not None:
            need = f"micro-batch {best.layout.micro_batch}, {best.memory.total / GIB:.1f} GiB"
            lines.append(f"what works: {other}, {best} ({need})")
            if other is setup or len(lines) == 3:
                break
    if len(lines) == 1:
        lines.append("no GPU of the table is large enough: lower data.image_size, or take a smaller model")
    return "\n".join(lines)


def _neighbours(setup: Setup) -> Iterator[Setup]:
    """Set-ups by how little they change: all strategies, more GPUs, larger ones."""
    yield setup
    if setup.device == "cuda":
        yield from (replace(setup, gpus=gpus) for gpus in range(setup.gpus + 1, MAX_GPUS_OF_A_NODE + 1))
    for gpu in sorted(GPUS.values(), key=lambda gpu: gpu.memory):
        if gpu.memory > setup.gpu.memory:
            yield replace(setup, gpu=gpu, device="cuda")


def fits(recipe: Recipe, num_gpus: int, gpu_bytes: int, strategy: str) -> str | None:
    """A warning when the plan says that `recipe` will not fit into `gpu_bytes` of each of `num_gpus` processes.

    None when it fits, or when `cifar-lab plan` has not measured this model yet: nothing is measured here.
    """
    gpu = Gpu("this GPU", gpu_bytes / GIB, bf16=None, fp32=1.0, bandwidth=1.0, link="pcie3")
    try:
        plan = make_plan(recipe, Setup(gpu, num_gpus), strategy, measure=False)
    except UserError:
        return None  # what cannot be planned is said elsewhere, with the place in the recipe
    for option in plan.options:
        advice = option.problem or " ".join(["set", *changes(plan, option)])
        if option.layout.checkpointing == recipe.train.grad_checkpointing and advice != "set":
            return f"the plan says that this will not fit under {strategy}: {advice}; `cifar-lab plan` tells more"
    return None
