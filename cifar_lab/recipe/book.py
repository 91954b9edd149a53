"""The recipes that come with the project: where they are, what they promise, and what runs of them reached."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from cifar_lab.errors import UserError
from cifar_lab.recipe import Recipe, experiment_id
from cifar_lab.recipe.errors import did_you_mean

SUFFIXES = (".yaml", ".yml")
EDITOR_LINE = "# yaml-language-server:"
NOT_RECIPES = ("sweeps",)  # folders of other YAML files


class RecipeBookError(UserError):
    """There is no such recipe, or no place for a new one."""

    exit_status = 2


@dataclass(frozen=True)
class Reached:
    """Test accuracy of completed runs, the newest of each seed."""

    accuracies: tuple[float, ...]

    def __str__(self) -> str:
        if not self.accuracies:
            return "-"
        spread = f" ± {stdev(self.accuracies):.2%}" if len(self.accuracies) > 1 else ""
        return f"{fmean(self.accuracies):.2%}{spread}".replace("%", " %") + f" (n={len(self.accuracies)})"


def recipes_folder(named: Path | None = None) -> Path:
    """`named`, else ./recipes, else the checkout's. Raises RecipeBookError."""
    places = [named] if named is not None else [Path("recipes"), Path(__file__).resolve().parents[2] / "recipes"]
    for place in places:
        if os.path.isdir(place):
            return place
    raise RecipeBookError(f"there is no folder {places[0]}: name that of the recipes with --recipes DIR")


def list_recipes(folder: Path) -> dict[str, Path]:
    """Files by their names, which are paths below `folder` without the suffix; strong/ after the rest."""
    found = {}
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_RECIPES and not name.startswith("."))
        for name in sorted(files):
            path = Path(top, name)
            if path.suffix in SUFFIXES and not name.startswith("."):
                found[str(path.relative_to(folder).with_suffix(""))] = path
    return found


def find_recipe(name: str, named: Path | None = None) -> Path:
    """A recipe file, that of a run directory, or the one of that name. Raises RecipeBookError."""
    path = Path(name)
    if os.path.isfile(path / "recipe.yaml"):
        return path / "recipe.yaml"
    if os.path.isfile(path):
        return path
    if path.suffix in SUFFIXES:
        raise RecipeBookError(f"{path} does not exist; `cifar-lab recipes` lists the recipes that there are")
    known = list_recipes(recipes_folder(named))
    if name not in known and os.path.isdir(path):
        raise RecipeBookError(f"{path} holds no recipe.yaml; `cifar-lab recipes` lists the recipes that there are")
    if name not in known:
        raise RecipeBookError(f"there is no recipe {name!r}{did_you_mean(name, known)}; `cifar-lab recipes` lists them")
    return known[name]


def header(path: Path) -> list[str]:
    """The comment that a recipe opens with, without `# ` and the line for editors."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(EDITOR_LINE):
            lines.append(line[1:].removeprefix(" "))
    return lines


def expected(path: Path) -> str:
    """What the header's sentence `Expect:` says, empty without one."""
    words: list[str] = []
    for line in header(path):
        if words or line.startswith("Expect:"):
            words.append(line.removeprefix("Expect:").strip())
            if line.endswith("."):
                break
    return " ".join(words).removesuffix(".")


def reached(recipe: Recipe, runs: Path) -> Reached:
    """What runs of exactly this experiment, whatever the seed, reached below `runs`."""
    pattern = re.compile(rf"(\d+)-{experiment_id(recipe)}(?:\.(\d+))?")
    try:
        names = os.listdir(runs / recipe.name)
    except OSError:
        return Reached(())
    newest: dict[int, tuple[int, float]] = {}
    for name in names:
        match = pattern.fullmatch(name)
        accuracy = _accuracy(runs / recipe.name / name) if match else None
        if match and accuracy is not None:
            seed, number = int(match[1]), int(match[2] or 1)
            newest[seed] = max(newest.get(seed, (0, 0.0)), (number, accuracy))
    return Reached(tuple(accuracy for _, (_, accuracy) in sorted(newest.items())))


def _accuracy(run: Path) -> float | None:
    try:
        value = json.loads((run / "summary.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
