"""The plan's opinion on a run that is about to start, if there is one already."""

from __future__ import annotations

from dataclasses import replace

from cifar_lab.errors import UserError
from cifar_lab.planning.inputs import kept_footprint, known_sizes, pictures_of
from cifar_lab.planning.memory import STRATEGIES, memory
from cifar_lab.planning.options import divisors, halves, training_of
from cifar_lab.recipe import Recipe


def fits(recipe: Recipe, num_gpus: int, gpu_bytes: int, strategy: str) -> str | None:
    """A warning when the plan says that `recipe` will not fit into `gpu_bytes` of each of `num_gpus` processes.

    None when it fits, or when `cifar-lab plan` has not measured this model yet: nothing is measured here.
    """
    if strategy not in STRATEGIES:
        return None
    try:
        sizes = known_sizes(recipe)
        footprint = kept_footprint(recipe, sizes)
        batches = divisors(recipe, num_gpus)
    except UserError:
        return None  # it is said elsewhere, with the place in the recipe
    checkpointing = recipe.train.grad_checkpointing
    if footprint is None or not batches or (checkpointing and "checkpointed" not in footprint.passes):
        return None
    share = recipe.train.global_batch // num_gpus

    def needs(batch: int, eval_batch: int) -> int:
        return memory(
            footprint,
            training_of(recipe, share > batch, checkpointing),
            replace(pictures_of(recipe, sizes), eval_batch=eval_batch),
            strategy=strategy,
            world_size=num_gpus,
            micro_batch=batch,
        ).total

    batch, eval_batch = batches[-1], recipe.eval.batch
    if needs(batch, eval_batch) <= gpu_bytes:
        return None
    # The largest micro-batch that fits, with the largest evaluation beside it.
    fitting = [(b, e) for b in reversed(batches) for e in halves(eval_batch) if needs(b, e) <= gpu_bytes]
    if fitting:
        (smaller, evals), changes = fitting[0], []
        if smaller < batch:
            changes.append(f"train.micro_batch={smaller}")
        if evals < eval_batch:
            changes.append(f"eval.batch={evals}")
        advice = f"set {' '.join(changes)}"
    elif not checkpointing and "checkpointed" in footprint.passes:
        advice = "set train.grad_checkpointing=true, or ask `cifar-lab plan`"
    else:
        advice = "ask `cifar-lab plan` for a set-up that does"
    return (
        f"the plan says that this will not fit: about {needs(batch, eval_batch) / 2**30:.1f} GiB at micro-batch "
        f"{batch} under {strategy}, and there are {gpu_bytes / 2**30:.1f} GiB; {advice}"
    )
