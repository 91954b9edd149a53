"""How a recipe is named: by its file, by a run directory, or by its place below the folder of recipes."""

import os
from contextlib import suppress
from pathlib import Path

from cifar_lab.errors import UsageError
from cifar_lab.files.shipped import shipped
from cifar_lab.recipe.errors import RecipeError, nearest

SUFFIXES = (".yaml", ".yml")
SHIPPED = shipped("recipes")


def recipes_folder(named: Path | None = None) -> Path:
    """`named`, else ./recipes, else what came with the package. Raises UsageError."""
    for place in [Path("recipes"), SHIPPED] if named is None else [named]:
        if os.path.isdir(place):
            return place
    raise UsageError(f"there is no folder {named}: name the folder of the recipes with --recipes DIR")


def list_recipes(folder: Path) -> dict[str, Path]:
    """Files by their names, paths below `folder` without the suffix; strong/ after the rest. Raises UsageError."""
    found = {}
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "sweeps" and not name.startswith("."))
        for name in sorted(files):
            path = Path(top, name)
            if path.suffix in SUFFIXES and not name.startswith("."):
                found[str(path.relative_to(folder).with_suffix(""))] = path
    if not found:
        raise UsageError(f"there is no recipe in {folder}")
    return found


def find_recipe(name: str | Path, folder: Path | None = None) -> Path:
    """A recipe's file, named by itself, a run, or its name in `folder`, else ./recipes or ours. Raises RecipeError."""
    path = Path(name)
    known: dict[str, Path] = {}
    for file in (path / "recipe.yaml", path):
        if os.path.isfile(file):
            return file
    for place in [] if path.is_absolute() else [SHIPPED, Path("recipes")] if folder is None else [folder]:
        with suppress(UsageError):  # there may be no such folder
            known |= list_recipes(place)
    if str(name) in known or os.path.exists(path):
        return known.get(str(name), path)  # or what is no file: its reader says so
    files = {child.stem: str(child) for child in path.parent.glob("*.yaml")}
    near = files.get(nearest(path.stem, files) or "") or nearest(str(path.with_suffix("")), known)
    if near:
        hint = f" (did you mean `{near}`?)"
    else:
        hint = "" if path.parent.is_dir() else f"; the folder {path.parent} does not exist"
    raise RecipeError([f"{path}: no such file{hint}{'; `cifar-lab recipes` lists the recipes' if known else ''}"])
