"""What a completed run leaves of its model: model.safetensors with model.json, in the run or copied elsewhere."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar_lab.errors import UsageError, UserError
from cifar_lab.models.description import DESCRIPTION, Description, read_description
from cifar_lab.recipe import Recipe, RecipeError, load_recipe, parse_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import find_run, runs_below

WEIGHTS, RECIPE = "model.safetensors", "recipe.yaml"
# What another use of a model may change: the pictures and how they are run through it. The rest is what it is, and
# with another val_size or limit, pictures that it was trained on would count as held out.
OPEN_SECTIONS = ("data.", "eval.")
CLOSED_KEYS = re.compile(r"data\.(\w+_size|interpolation|mean|std|augment|limit)\b|eval\.every_epochs\b")


@dataclass(frozen=True)
class SavedModel:
    """Where the weights are, what model.json says, and the run's recipe; of a bare file, one with defaults."""

    weights: Path
    description: Description
    recipe: Recipe
    run: RunDir | None

    @property
    def path(self) -> Path:
        """What people call it: the run directory, or the file."""
        return self.weights if self.run is None else self.run.path


def open_saved(path: str | Path, overrides: Sequence[str] = (), *, data: str | None = None) -> SavedModel:
    """The model of a run (see `find_run`), of a folder with both files, or of a .safetensors file with its model.json.

    `overrides` (`data.` and `eval.` keys) change the recipe, `data` names the source of other pictures and forgets all
    that the recipe says of its own. Raises UserError.
    """
    if os.path.isdir(path):
        path = path if os.path.isfile(Path(path, WEIGHTS)) or not runs_below([Path(path)]) else find_run(path)
    weights = Path(path, WEIGHTS) if os.path.isdir(path) else Path(path)
    folder = weights.parent
    if weights.suffix != ".safetensors" or not os.path.isdir(folder):
        problem = "is neither a run directory nor a .safetensors file" if os.path.exists(path) else "does not exist"
        raise UsageError(f"{path} {problem}: name a run directory, or a {WEIGHTS} with its {DESCRIPTION}")
    run = RunDir(folder) if (folder / RECIPE).exists() and weights.name == WEIGHTS else None
    if not os.path.isfile(weights):
        raise UsageError(f"{folder} holds no {weights.name}{_instead(folder, run)}")
    description = read_description(folder)
    closed = [text for text in overrides if not text.startswith(OPEN_SECTIONS) or CLOSED_KEYS.match(text)]
    if closed:
        which = "only the pictures (data.root, data.args, ...), eval.batch and eval.tta can be changed"
        raise UsageError(f'"{closed[0]}": of a trained model {which}')
    if run is None:
        named = [f"data.name={data}"] if data is not None else []
        recipe = _bare_recipe(folder / DESCRIPTION, description, [*named, *overrides])
        return SavedModel(weights, description, recipe, None)
    if data is not None:
        forgotten = ("args={}", "root=null", "val_size=0", "test_size=null", "limit=null", "test_limit=null")
        overrides = [f"data.name={data}", *(f"data.{text}" for text in forgotten), *overrides]
    return SavedModel(weights, description, load_recipe(folder / RECIPE, overrides, check_files=False), run)


def _instead(folder: Path, run: RunDir | None) -> str:
    """What to do where there are no weights."""
    if run is not None:
        status = run.status()
        stands = f"{status.state}, step {status.step} of {status.total_steps}" if status else "not started"
        again = f"cifar-lab train {run.path / RECIPE} --run-dir {run.path}"
        return f": its run is not complete ({stands}); continue with `{again}`"
    return "; name a run, or a folder that holds one"


def _bare_recipe(path: Path, description: Description, overrides: Sequence[str]) -> Recipe:
    """Defaults for all that a file without a run does not tell; it is never trained with."""
    mapping = {
        "name": "bare",
        "data": {"name": "cifar10"},
        "model": {"name": description.name, "args": description.args},
        "optim": {"lr": 1.0},
        "train": {"steps": 1, "global_batch": 1},
    }
    try:
        parse_recipe(mapping, check_files=False)
    except RecipeError as error:
        raise UserError(f"{path} is damaged: {error.problems[0]}") from None
    return parse_recipe(mapping, overrides, check_files=False)
