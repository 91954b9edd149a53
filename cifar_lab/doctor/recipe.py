"""What a recipe asks of this job: processes that its batch divides over, options that work there, room on disk."""

from __future__ import annotations

from collections.abc import Iterator

from cifar_lab.data.sizes import data_sizes
from cifar_lab.doctor.check import Check
from cifar_lab.errors import UserError
from cifar_lab.planning import kept_answer
from cifar_lab.planning.memory import num_moments
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.recipe.support import unsupported


def layout_checks(recipe: Recipe, *, world_size: int, strategy: str, device: str) -> Iterator[Check]:
    """Whether the recipe can be laid out over the processes, and supports the device and the strategy."""
    used = "single" if world_size == 1 and strategy == "ddp" else strategy
    for line in unsupported(recipe, device=device, strategy=used):
        problem, _, fix = line.rpartition("; ")
        yield Check("options", "FAIL", problem or line, fix)
    try:
        sizes = data_sizes(recipe)
        # The batch is judged on its own where only the data tell how many images there are.
        schedule = Schedule.make(recipe, sizes.num_train if sizes else 2**40, world_size)
    except UserError as error:
        yield Check("batch", "FAIL", str(error), "another --nproc or number of nodes, or another train.global_batch")
        return
    processes = f"{world_size} {'process' if world_size == 1 else 'processes'}"
    says = f"{schedule.global_batch} = {processes} x {schedule.accumulation_steps} x {schedule.micro_batch}"
    yield Check("batch", "ok", f"{says}, {used} on {device}")


def checkpoint_bytes(recipe: Recipe) -> int | None:
    """What a run keeps on disk at once: its checkpoints, the next one, and the final weights; None where unknown."""
    try:
        sizes = data_sizes(recipe)
        if sizes is None:
            return None
        parameters: int = kept_answer.ask(*kept_answer.about("models.size", recipe.model, sizes))["num_parameters"]
    except (UserError, ImportError):
        return None  # said by the other checks
    ema = recipe.train.ema_decay is not None
    kept = recipe.checkpoint.keep_last + 1
    return 4 * parameters * ((1 + num_moments(recipe) + ema) * kept + 1)
