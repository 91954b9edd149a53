"""`train RECIPE --dry-run`: what a recipe resolves to and how it would be laid out, without torch in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cifar_lab.cli.table import table
from cifar_lab.data.sizes import DataSizes, data_sizes
from cifar_lab.errors import UserError
from cifar_lab.planning.kept_answer import Question
from cifar_lab.recipe import Recipe, experiment_id, load_recipe, origins
from cifar_lab.recipe.identity import flatten
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.rundir.directory import RunDir

UNKNOWN = "known after the data are read"
SCHEDULE_FIELDS = ("global_batch", "micro_batch", "accumulation_steps", "steps_per_epoch", "total_steps")


class DryRunError(UserError):
    """A number asked for makes no sense."""


def show(
    path: str,
    overrides: Sequence[str] = (),
    *,
    world_size: int = 1,
    as_json: bool = False,
    runs: str = "runs",
    run_dir: str | None = None,
    fresh: bool = False,
) -> int:
    """Print the description of a recipe file; 2 with a message where the recipe, topology or place is refused."""
    try:
        recipe = load_recipe(path, overrides)
        run = RunDir.locate(recipe, runs=runs, run_dir=run_dir, fresh=fresh)
        description = describe(recipe, origins(path, overrides), world_size, run)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(description, indent=2) if as_json else render(description))
    return 0


def describe(recipe: Recipe, where: Mapping[str, str], world_size: int, run: RunDir) -> dict[str, Any]:
    """Everything that is known before the data are read, as JSON values; null is what is not.

    `recipe` (dotted key to value and origin), `experiment_id`, `run_dir`, `state`, `world_size`, `data` (num_train
    after the validation split and limits, num_val, num_test, num_classes, source_size, image_size), `batch` (fields of
    Schedule) and `model` (num_parameters, flops_per_image). Raises ScheduleError for a topology that does not divide.
    """
    if world_size < 1:
        raise DryRunError(f"--world-size is {world_size}: it must be at least 1")
    sizes = data_sizes(recipe)
    status = run.status()
    return {
        "recipe": {key: {"value": value, "origin": where[key]} for key, value in flatten(recipe).items()},
        "experiment_id": experiment_id(recipe),
        "run_dir": str(run.path),
        "state": None if status is None else status.state,
        "world_size": world_size,
        "data": None if sizes is None else asdict(sizes),
        "batch": _batch(recipe, None if sizes is None else sizes.num_train, world_size),
        "model": None if sizes is None else _model_size(recipe, sizes),
    }


def render(description: Mapping[str, Any]) -> str:
    """The description as text."""
    data, batch, model = description["data"], description["batch"], description["model"]
    layout = (
        f"{batch['global_batch']} = {_count(description['world_size'], 'process', 'processes')} x "
        f"{_count(batch['accumulation_steps'], 'micro-batch', 'micro-batches')} of {batch['micro_batch']}"
    )
    length = UNKNOWN
    if batch["total_steps"] is not None:
        length = f"{batch['total_steps']:,} steps, {batch['steps_per_epoch']:,} an epoch"
    lines = [
        ("images", UNKNOWN if data is None else _images(data)),
        ("global batch", layout),
        ("length", length),
        ("model", UNKNOWN if model is None else _size(model)),
        ("experiment", description["experiment_id"]),
        ("run directory", f"{description['run_dir']} ({description['state'] or 'new'})"),
    ]
    values = [(key, _scalar(item["value"]), item["origin"]) for key, item in description["recipe"].items()]
    return f"{table(values)}\n\n{table(lines)}"


def _batch(recipe: Recipe, num_train: int | None, world_size: int) -> dict[str, int | None]:
    if num_train is not None:
        schedule = Schedule.make(recipe, num_train, world_size)
        return {name: getattr(schedule, name) for name in SCHEDULE_FIELDS}
    # The division over processes does not depend on the data, so it is checked and told all the same.
    without_warmup = recipe.optim.model_copy(update={"warmup_epochs": 0.0})
    one_epoch = recipe.train.model_copy(update={"epochs": 1.0, "steps": None})
    schedule = Schedule.make(
        recipe.model_copy(update={"optim": without_warmup, "train": one_epoch}), recipe.train.global_batch, world_size
    )
    known: dict[str, int | None] = {name: getattr(schedule, name) for name in SCHEDULE_FIELDS}
    return known | {"steps_per_epoch": None, "total_steps": recipe.train.steps}


def _model_size(recipe: Recipe, sizes: DataSizes) -> dict[str, Any]:
    """The size as a child process counts it, or as one did before: importing torch here would take seconds."""
    return Question.about(recipe.model, "models.size", num_classes=sizes.num_classes, image_size=sizes.image_size).ask()


def _images(data: Mapping[str, int]) -> str:
    size = f"{data['image_size']} x {data['image_size']} pixels, {data['num_classes']} classes"
    return f"{data['num_train']:,} train, {data['num_val']:,} validation, {data['num_test']:,} test; {size}"


def _size(model: Mapping[str, int]) -> str:
    return f"{model['num_parameters']:,} parameters, {model['flops_per_image'] / 1e9:.3g} GFLOP an image forward"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
