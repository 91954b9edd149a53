"""How a recipe is named: by its file, by a run directory, or by its place below the folder of recipes."""

import os
from contextlib import suppress
from pathlib import Path

from cifar_lab.errors import UsageError
from cifar_lab.recipe.errors import RecipeError, nearest

SUFFIXES = (".yaml", ".yml")
NOT_RECIPES = ("sweeps",)  # folders of other YAML files
SHIPPED = Path(__file__).resolve().parents[2] / "recipes"


def recipes_folder(named: Path | None = None) -> Path:
    """`named`, else ./recipes, else the checkout's. Raises UsageError."""
    places = [named] if named is not None else [Path("recipes"), SHIPPED]
    for place in places:
        if os.path.isdir(place):
            return place
    raise UsageError(f"there is no folder {places[0]}: name the folder of the recipes with --recipes DIR")


def list_recipes(folder: Path) -> dict[str, Path]:
    """Files by their names, paths below `folder` without the suffix; strong/ after the rest. Raises UsageError."""
    found = {}
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_RECIPES and not name.startswith("."))
        for name in sorted(files):
            path = Path(top, name)
            if path.suffix in SUFFIXES and not name.startswith("."):
                found[str(path.relative_to(folder).with_suffix(""))] = path
    if not found:
        raise UsageError(f"there is no recipe in {folder}")
    return found


def find_recipe(name: str | Path, folder: Path | None = None) -> Path:
    """A recipe file, that of a run directory, or the one of that name below `folder`. Raises RecipeError."""
    path, known = Path(name), {}
    for file in (path / "recipe.yaml", path):
        if os.path.isfile(file):
            return file
    if not path.is_absolute():
        with suppress(UsageError):  # there may be no such folder
            known = list_recipes(recipes_folder(folder))
    if str(name) in known or os.path.exists(path):
        return known.get(str(name), path)  # or what is no file: its reader says so
    files = {child.stem: str(child) for child in path.parent.glob("*.yaml")}
    near = files.get(nearest(path.stem, files) or "") or nearest(str(path.with_suffix("")), known)
    if near:
        hint = f" (did you mean `{near}`?)"
    else:
        hint = "" if path.parent.is_dir() else f"; the folder {path.parent} does not exist"
    raise RecipeError([f"{path}: no such file{hint}{'; `cifar-lab recipes` lists the recipes' if known else ''}"])
