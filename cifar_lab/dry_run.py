"""`train RECIPE --dry-run`: what a recipe resolves to and how it would be laid out, without torch in this process."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cifar_lab import atomic
from cifar_lab.errors import UserError
from cifar_lab.recipe import Recipe, RecipeError, experiment_id, load_recipe, origins
from cifar_lab.recipe.identity import flatten
from cifar_lab.rundir import RunDir, RunDirError, cache_root
from cifar_lab.schedule import Schedule, ScheduleError

UNKNOWN = "known after the data are read"
SCHEDULE_FIELDS = ("global_batch", "micro_batch", "accumulation_steps", "steps_per_epoch", "total_steps")


class DryRunError(UserError):
    """The model of a recipe cannot be built, or a number asked for makes no sense."""


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
    except (RecipeError, ScheduleError, RunDirError, DryRunError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(description, indent=2) if as_json else render(description))
    return 0


def describe(recipe: Recipe, where: Mapping[str, str], world_size: int, run: RunDir) -> dict[str, Any]:
    """Everything that is known before the data are read, as JSON values; null is what is not.

    `recipe` (dotted key to value and origin), `experiment_id`, `run_dir`, `state`, `world_size`, `data` (num_train
    after the validation split and limits, num_val, num_test, num_classes, image_size), `batch` (the fields of
    Schedule) and `model` (num_parameters, flops_per_image). Raises ScheduleError for a topology that does not divide.
    """
    if world_size < 1:
        raise DryRunError(f"--world-size is {world_size}: it must be at least 1")
    data = _data(recipe)
    status = run.status()
    return {
        "recipe": {key: {"value": value, "origin": where[key]} for key, value in flatten(recipe).items()},
        "experiment_id": experiment_id(recipe),
        "run_dir": str(run.path),
        "state": None if status is None else status.state,
        "world_size": world_size,
        "data": data,
        "batch": _batch(recipe, None if data is None else data["num_train"], world_size),
        "model": None if data is None else _model_size(recipe, data["num_classes"], data["image_size"]),
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
    return "\n".join([*_columns(values), "", *_columns(lines)])


def _data(recipe: Recipe) -> dict[str, int] | None:
    data = recipe.data
    info = importlib.import_module(f"cifar_lab.data.sources.{data.name}").info(**data.args)
    if info is None:
        return None
    left = info.num_train - data.val_size
    if left < (data.limit or 1):
        limit = "" if data.limit is None else f" and data.limit={data.limit}"
        raise DryRunError(
            f"data.val_size={data.val_size}{limit} are too many: there are {info.num_train} training images"
        )
    if info.num_test < (data.test_limit or 1):
        raise DryRunError(f"data.test_limit={data.test_limit} is more than the {info.num_test} test images")
    return {
        "num_train": data.limit or left,
        "num_val": data.val_size,
        "num_test": data.test_limit or info.num_test,
        "num_classes": info.num_classes,
        "image_size": data.image_size or info.image_size,
    }


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


def _model_size(recipe: Recipe, num_classes: int, image_size: int) -> dict[str, int]:
    """The size as a child process counts it, or as one did before: importing torch here would take seconds."""
    model = recipe.model.model_dump(mode="json")
    # Which weights it starts from does not change its size.
    model |= {"pretrained": False, "weights": None}
    question = json.dumps({"model": model, "num_classes": num_classes, "image_size": image_size}, sort_keys=True)
    kept = cache_root() / "model_size" / f"{hashlib.sha256((question + _code()).encode()).hexdigest()[:32]}.json"
    try:
        answer: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return answer
    except (OSError, ValueError):
        pass
    child = subprocess.run(
        [sys.executable, "-m", "cifar_lab.model_size"], input=question, capture_output=True, text=True, check=False
    )
    if child.returncode != 0:
        raise DryRunError(f"the model cannot be built: {(child.stderr.strip().splitlines() or ['?'])[-1]}")
    answer = json.loads(child.stdout.splitlines()[-1])
    if "error" in answer:
        raise DryRunError(answer["error"])
    with suppress(OSError):  # an answer that cannot be kept is counted again
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(kept, answer)
    return answer


def _code() -> str:
    """Changes when the code that builds and counts models may."""
    package = Path(__file__).parent
    files = [package / "model_factory.py", package / "model_size.py", *sorted((package / "models").glob("*.py"))]
    return "".join(file.read_text(encoding="utf-8") for file in files) + version("torch") + version("timm")


def _images(data: Mapping[str, int]) -> str:
    size = f"{data['image_size']} x {data['image_size']} pixels, {data['num_classes']} classes"
    return f"{data['num_train']:,} train, {data['num_val']:,} validation, {data['num_test']:,} test; {size}"


def _size(model: Mapping[str, int]) -> str:
    return f"{model['num_parameters']:,} parameters, {model['flops_per_image'] / 1e9:.3g} GFLOP an image forward"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
