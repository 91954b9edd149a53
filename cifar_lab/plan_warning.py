"""The plan's opinion on a run that is about to start, if there is one already."""

from __future__ import annotations

from cifar_lab.errors import UserError
from cifar_lab.plan_inputs import data_sizes, kept_footprint, pictures_of
from cifar_lab.planning.memory import STRATEGIES, Memory, memory
from cifar_lab.planning.options import divisors, training_of
from cifar_lab.recipe import Recipe


def fits(recipe: Recipe, num_gpus: int, gpu_bytes: int, strategy: str) -> str | None:
    """A warning when the plan says that `recipe` will not fit into `gpu_bytes` of each of `num_gpus` processes.

    None when it fits, or when `cifar-lab plan` has not measured this model yet: nothing is measured here.
    """
    if strategy not in STRATEGIES:
        return None
    try:
        sizes = data_sizes(recipe)
        footprint = kept_footprint(recipe, sizes)
        batches = divisors(recipe, num_gpus)
    except UserError:
        return None  # it is said elsewhere, with the place in the recipe
    checkpointing = recipe.train.grad_checkpointing
    if footprint is None or not batches or (checkpointing and "checkpointed" not in footprint.passes):
        return None
    share = recipe.train.global_batch // num_gpus

    def needs(batch: int) -> Memory:
        return memory(
            footprint,
            training_of(recipe, share > batch, checkpointing),
            pictures_of(recipe, sizes),
            strategy=strategy,
            world_size=num_gpus,
            micro_batch=batch,
        )

    batch = batches[-1]
    whole = needs(batch)
    if whole.total <= gpu_bytes:
        return None
    smaller = [b for b in batches if needs(b).training <= gpu_bytes]
    if whole.training <= gpu_bytes:
        advice = f"an evaluation is what is too large: lower eval.batch ({recipe.eval.batch})"
    elif smaller:
        advice = f"set train.micro_batch={smaller[-1]}"
    elif not checkpointing and "checkpointed" in footprint.passes:
        advice = "set train.grad_checkpointing=true, or ask `cifar-lab plan`"
    else:
        advice = "ask `cifar-lab plan` for a set-up that does"
    return (
        f"the plan says that this will not fit: about {whole.total / 2**30:.1f} GiB at micro-batch {batch} under "
        f"{strategy}, and there are {gpu_bytes / 2**30:.1f} GiB; {advice}"
    )
