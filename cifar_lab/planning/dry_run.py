"""`train RECIPE --dry-run`: what a recipe resolves to and how it would be laid out, without torch in this process."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

from cifar_lab.cli.table import table
from cifar_lab.data.raw import DataError
from cifar_lab.data.sizes import DataSizes, data_sizes
from cifar_lab.data.sources import find_source
from cifar_lab.errors import UserError
from cifar_lab.planning import kept_answer
from cifar_lab.recipe import Recipe, experiment_id, load_recipe, origins
from cifar_lab.recipe.identity import flatten
from cifar_lab.recipe.schedule import Schedule, layout
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import Place, startable


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
        recipe = startable(partial(load_recipe, path, overrides), Place(runs, run_dir, fresh))
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
    after the validation split and limits, num_val, num_test, num_classes, source_size, image_size), `data_place`,
    `batch` (fields of Schedule) and `model` (num_parameters, flops_per_image). Raises UsageError for a topology that
    does not divide, and DataError where `data.root` holds no data.
    """
    sizes = data_sizes(recipe)
    status = run.status()
    return {
        "recipe": {key: {"value": value, "origin": where[key]} for key, value in flatten(recipe).items()},
        "experiment_id": experiment_id(recipe),
        "run_dir": str(run.path),
        "state": None if status is None else status.state,
        "world_size": world_size,
        "data": None if sizes is None else asdict(sizes),
        "data_place": _data_place(recipe),
        "batch": _batch(recipe, sizes, world_size),
        # As a child process counts it, or as one did before: importing torch here would take seconds.
        "model": kept_answer.ask("models.size", recipe.model, sizes) if sizes and find_spec("torch") else None,
    }


def _data_place(recipe: Recipe) -> str | None:
    """Where the pictures are, by the names of files; None of a source that does not say."""
    source = find_source(recipe.data.name)
    if not hasattr(source, "find"):
        return None
    try:
        place = source.find(recipe.data.root, **recipe.data.args)
    except DataError as error:
        if recipe.data.root is not None:
            raise
        return f"not on this machine: {error}"  # which $CIFAR_LAB_DATA may say of another one
    return str(place or "from the hub: the first start fetches them, unless `datasets` kept them here")


def _batch(recipe: Recipe, sizes: DataSizes | None, world_size: int) -> dict[str, int | None]:
    # The division over processes does not depend on the data, so it is checked and told in any case.
    schedule = Schedule.make(recipe, sizes.num_train if sizes else 2**40, world_size)
    return {
        "global_batch": schedule.global_batch,
        "micro_batch": schedule.micro_batch,
        "accumulation_steps": schedule.accumulation_steps,
        "steps_per_epoch": schedule.steps_per_epoch if sizes else None,
        "total_steps": schedule.total_steps if sizes else recipe.train.steps,
    }


def render(description: Mapping[str, Any]) -> str:
    """The description as text."""
    data, batch, model = description["data"], description["batch"], description["model"]
    images = length = size = "not known before the data are read"
    if data is not None:
        size = "not counted: torch is not installed here"
        splits = f"{data['num_train']:,} train, {data['num_val']:,} validation, {data['num_test']:,} test"
        images = f"{splits}; {data['image_size']} x {data['image_size']} pixels, {data['num_classes']} classes"
    if batch["total_steps"] is not None:
        length = f"{batch['total_steps']:,} steps"
    if batch["steps_per_epoch"] is not None:
        length += f", {batch['steps_per_epoch']:,} per epoch"
    if model is not None:
        flops = model["flops_per_image"] / 1e9
        size = f"{model['num_parameters']:,} parameters, {flops:.3g} GFLOP per image (forward pass)"
    division = layout(description["world_size"], batch["accumulation_steps"], batch["micro_batch"])
    lines = [
        ("data", description["data_place"] or f"as data.name={description['recipe']['data.name']['value']} makes them"),
        ("images", images),
        ("global batch", f"{batch['global_batch']} = {division}"),
        ("length", length),
        ("model", size),
        ("experiment", description["experiment_id"]),
        ("run directory", f"{description['run_dir']} ({description['state'] or 'new'})"),
    ]
    values = [(key, written(item["value"]), item["origin"]) for key, item in description["recipe"].items()]
    return f"{table(values)}\n\n{table(lines)}"


def written(value: Any) -> str:
    """A value of a recipe as a line shows it."""
    return value if isinstance(value, str) else json.dumps(value)
