"""The size of the micro-batch, where layers couple its samples: part of the result, so kept, compared and refused."""

import logging
from collections.abc import Sequence

from cifar_lab.checkpoint.saver import TrainingState
from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule

log = logging.getLogger("cifar_lab")


def micro_batches(
    before: TrainingState | None, recipe: Recipe, schedule: Schedule, coupling: Sequence[str], *, accepted: bool
) -> list[str]:
    """What shaped the result so far and will from here, in the order of use; nothing where no layer couples samples.

    `before` is the state that the run goes on from, `coupling` the types of the layers. Raises UsageError where this
    start has another size than the one before, and nobody `accepted` it.
    """
    if not coupling:
        return []
    size = str(schedule.micro_batch)
    if recipe.train.sync_batchnorm:  # its statistics are those of all processes
        size += f" on each of {schedule.world_size}"
    used = before.micro_batches if before else []
    if before is None or not used or used[-1] == size:
        return used or [size]
    told = f"at micro-batch {size}, after training at {used[-1]}"
    if accepted:
        log.warning("continuing %s (--accept-micro-batch): summary.json and the report show both", told)
        return [*used, size]
    way_back = f"train.micro_batch={before.micro_batch}"
    if recipe.train.sync_batchnorm or schedule.global_batch // schedule.world_size % before.micro_batch:
        way_back += f" with {before.world_size} process{'es' if before.world_size > 1 else ''}"
    raise UsageError(
        f"this start would continue {told}, which changes the result, since {', '.join(coupling[:3])} work on a whole "
        f"micro-batch: set {way_back}, or accept the change with --accept-micro-batch"
    )
