"""What a completed run leaves of its model: model.safetensors with model.json, in the run or copied elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from cifar_lab.errors import UserError
from cifar_lab.recipe import Recipe, RecipeError, load_recipe, parse_recipe
from cifar_lab.recipe.schema import Floats, PositiveInt, Section
from cifar_lab.recipe.source import mapping_source
from cifar_lab.rundir.directory import RunDir

WEIGHTS, DESCRIPTION, RECIPE = "model.safetensors", "model.json", "recipe.yaml"
MAX_BYTES = 1 << 20  # of model.json: ten thousand class names take a quarter of it
# What another use of a model may change: the pictures and how they are run through it. The rest is what it is.
OPEN_SECTIONS = ("data.", "eval.")
CLOSED_KEYS = re.compile(r"data\.(image_size|interpolation|mean|std|augment)\b|eval\.every_epochs\b")
LARGEST_SIDE = 4096  # of a picture, in pixels


class SavedModelError(UserError):
    """A model's files are missing or damaged."""


class NotAModelError(SavedModelError):
    """What was named holds no model."""

    exit_status = 2


class Description(Section, extra="ignore"):
    """model.json: what it takes to build the model again and to feed it; mean and std on the 0..1 scale."""

    format: Literal[1]
    name: str
    args: dict[str, Any]
    num_classes: PositiveInt
    classes: tuple[str, ...] = Field(strict=False)
    image_size: PositiveInt = Field(le=LARGEST_SIDE)
    source_size: PositiveInt | None = Field(default=None, le=LARGEST_SIDE)
    interpolation: Literal["bicubic", "bilinear"]
    mean: Floats
    std: Floats

    @model_validator(mode="after")
    def _fits_together(self) -> Description:
        if len(self.classes) != self.num_classes:
            raise ValueError(f"num_classes is {self.num_classes}, but classes has {len(self.classes)} names")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std must have three numbers each, those of std above 0")
        return self


@dataclass(frozen=True)
class SavedModel:
    """Where the weights are, what model.json says, and the run's recipe, of a bare file one with defaults."""

    weights: Path
    description: Description
    recipe: Recipe
    run: RunDir | None

    @property
    def path(self) -> Path:
        """What people call it: the run directory, or the file."""
        return self.weights if self.run is None else self.run.path


def open_saved(path: str, overrides: Sequence[str] = (), *, data: str | None = None) -> SavedModel:
    """The model of a run directory, of a folder with both files, or of a .safetensors file with its model.json.

    `overrides` (`data.` and `eval.` keys) change the recipe, `data` names another source and forgets all that the
    recipe says of its own. Raises SavedModelError, RecipeError.
    """
    folder, weights = _locate(Path(path))
    run = RunDir(folder) if (folder / RECIPE).exists() and weights.name == WEIGHTS else None
    if not weights.is_file():
        raise NotAModelError(_incomplete(run) if run else _nothing(folder))
    description = read_description(folder / DESCRIPTION)
    closed = [text for text in overrides if not text.startswith(OPEN_SECTIONS) or CLOSED_KEYS.match(text)]
    if closed:
        which = "only the pictures (data.root, data.args, ...), eval.batch and eval.tta can be changed"
        raise NotAModelError(f'"{closed[0]}": of a trained model {which}')
    if run is None:
        try:
            _bare_recipe(description, "cifar10", ())
        except RecipeError as error:
            raise SavedModelError(f"{folder / DESCRIPTION} is damaged: {error.problems[0]}") from None
        return SavedModel(weights, description, _bare_recipe(description, data or "cifar10", overrides), None)
    if data is not None and data != run.recipe().data.name:
        forgotten = ("args={}", "root=null", "limit=null", "test_limit=null")
        overrides = [f"data.name={data}", *(f"data.{text}" for text in forgotten), *overrides]
    recipe = load_recipe(folder / RECIPE, overrides, check_files=False)
    return SavedModel(weights, description, recipe, run)


def read_description(path: Path) -> Description:
    """Contents of a model.json. Raises SavedModelError."""
    try:
        if not path.is_file():
            raise NotAModelError(f"{path} is missing: it says how the model is built; copy it there from the run")
        if path.stat().st_size > MAX_BYTES:
            raise SavedModelError(f"{path} is larger than 1 MiB, so it is no model.json")
        return Description(**json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise SavedModelError(f"{path} is damaged: {f'{key}: ' if key else ''}{said}") from None
    except UserError:
        raise
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SavedModelError(f"{path} cannot be read: {error}") from None


def _locate(path: Path) -> tuple[Path, Path]:
    """(folder, weights file) of what was named."""
    try:
        if path.is_dir():
            return path, path / WEIGHTS
        if path.suffix == ".safetensors":
            return path.parent, path
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise NotAModelError(f"{path} cannot be used: {getattr(error, 'strerror', None) or error}") from None
    if exists:
        raise NotAModelError(f"{path} is neither a run directory nor a .safetensors file")
    raise NotAModelError(f"{path} does not exist: name a run directory, or a model.safetensors with its model.json")


def _nothing(folder: Path) -> str:
    if not folder.is_dir() or (folder / DESCRIPTION).exists():
        return f"there is no weights file {WEIGHTS} in {folder}"
    runs = sorted(recipe.parent for recipe in [*folder.glob(f"*/{RECIPE}"), *folder.glob(f"*/*/{RECIPE}")])
    hint = f"; it holds runs, name one of them, such as {runs[0]}" if runs else ""
    return f"{folder} holds no model: there is no {WEIGHTS} in it{hint}"


def _incomplete(run: RunDir) -> str:
    status = run.status()
    if status is not None and status.state == "completed":
        return f"{run.path} is completed, but its {WEIGHTS} is gone"
    stands = f"{status.state}, step {status.step} of {status.total_steps}" if status else "not started"
    return (
        f"{run.path} is not complete yet ({stands}), so it has no {WEIGHTS}; continue it with "
        f"`cifar-lab train {run.path / RECIPE} --run-dir {run.path}`"
    )


def _bare_recipe(description: Description, data: str, overrides: Sequence[str]) -> Recipe:
    """Defaults for all that a file without a run does not tell; it is never trained with."""
    source = mapping_source(
        {
            "name": "bare",
            "data": {"name": data},
            "model": {"name": description.name, "args": description.args},
            "optim": {"lr": 1.0},
            "train": {"steps": 1, "global_batch": 1},
        }
    )
    for text in overrides:
        source.override(text)
    source.raise_problems()
    return parse_recipe(source.values, check_files=False)
