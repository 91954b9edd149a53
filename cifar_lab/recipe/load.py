"""Load a recipe: read, override, validate, check; every problem at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_lab.recipe import outside
from cifar_lab.recipe.checks import contradictions, missing_files, references
from cifar_lab.recipe.errors import Problem, RecipeError
from cifar_lab.recipe.identity import flatten
from cifar_lab.recipe.schema import Recipe
from cifar_lab.recipe.source import OVERRIDE, Source, mapping_source, read_source
from cifar_lab.recipe.validate import validate


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True) -> Recipe:
    """The recipe of a YAML file, changed by `dotted.key=value` overrides (the last one of a key wins).

    `check_files=False` does not ask whether `model.weights` and `data.root` exist: for a finished run's recipe, read
    elsewhere. Raises RecipeError with all problems, each `file:line: dotted.key: what is wrong`.
    """
    return _check(read_source(path, overrides), check_files)


def parse_recipe(mapping: Mapping[str, Any], overrides: Sequence[str] = (), *, check_files: bool = True) -> Recipe:
    """The recipe of a nested mapping, under the same checks. Raises RecipeError."""
    return _check(mapping_source(mapping, overrides), check_files)


def origins(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Where the value of each dotted key came from: `file:line`, `override` or `default`.

    Raises RecipeError like `load_recipe`, but for files that are missing.
    """
    source = read_source(path, overrides)
    recipe = _check(source, check_files=False)
    places: dict[str, str] = {}
    for key in flatten(recipe):
        line = source.lines.get(key, 0)
        places[key] = "default" if line == 0 else "override" if line is None else f"{source.label}:{line}"
    return places


def _check(source: Source, check_files: bool) -> Recipe:
    recipe, broken = validate(source)
    if recipe is not None:
        recipe = _settled(recipe, source, broken)
        found = [*contradictions(recipe), *references(recipe), *(missing_files(recipe) if check_files else [])]
        for problem in found:
            if not _touches(problem, broken):
                source.report(problem)
    source.raise_problems()
    assert recipe is not None
    return recipe


def _settled(recipe: Recipe, source: Source, broken: set[str]) -> Recipe:
    """With settled names: seen from the recipe's file, those of overrides and mappings from the working folder."""
    changes = {}
    for section in ("data", "model"):
        part, key = getattr(recipe, section), f"{section}.name"
        folder = Path() if source.lines.get(key, OVERRIDE) is OVERRIDE else Path(source.label).parent
        try:
            changes[section] = part.model_copy(update={"name": outside.settle(part.name, folder)})
        except RecipeError as error:
            source.report(Problem((key,), str(error)))
            broken.add(key)
    return recipe.model_copy(update=changes)


def _touches(problem: Problem, broken: set[str]) -> bool:
    """Whether a problem is about a key that is wrong by itself, and so may be its mere consequence."""
    return any(key == wrong or key.startswith(wrong + ".") for key in problem.keys for wrong in broken)
