"""The runs of a study: a recipe with its overrides and seed, where it lives, and the commands that train it."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe, RecipeError, load_recipe
from cifar_lab.recipe.named import find_recipe, recipes_folder
from cifar_lab.rundir.directory import RunDir
from cifar_lab.study.sizing import Study


@dataclass(frozen=True)
class Member:
    """One run: what is trained, where, and how long that should take in minutes (None: unknown)."""

    name: str
    seed: int
    recipe_path: Path
    overrides: tuple[str, ...]
    recipe: Recipe
    path: Path
    minutes: float | None

    @property
    def label(self) -> str:
        return f"{self.name} seed {self.seed}"

    def command(self, runs: Path, nproc: int = 1) -> list[str]:
        """What trains it, or continues it."""
        start = ["-m", "cifar_lab.train"]
        if nproc > 1:
            start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(nproc), *start]
        recipe = [str(self.recipe_path), *self.overrides, f"seed={self.seed}"]
        return [sys.executable, *start, *recipe, "--runs", str(runs)]


def members(
    study: Study,
    names: Sequence[str],
    runs: Path,
    *,
    weights: str,
    seeds: Sequence[int] | None = None,
    extra: Sequence[str] = (),
) -> list[Member]:
    """The runs in their order; `extra` are overrides of all. Raises UsageError with the problems of all recipes."""
    folder = recipes_folder()
    found, problems = [], []
    if any(word.startswith("seed=") for word in extra):
        raise UsageError("seed=...: every run has a seed of its own; choose them with --seeds 0,1,2")
    for name in names:
        entry = study.runs[name]
        path = find_recipe(entry.recipe or name, folder)
        words = (*study.words(name, weights), *extra)
        for seed in seeds or entry.seeds or study.seeds:
            try:
                recipe = load_recipe(path, [*words, f"seed={seed}"])
            except RecipeError as error:
                problems += [f"{name}: {problem}" for problem in error.problems]
                break
            run = RunDir.locate(recipe, runs=str(runs))
            found.append(Member(name, seed, path, words, recipe, run.path, entry.minutes))
    if any("model.weights" in problem for problem in problems):
        problems.append("The folder of the weights is that of --weights DIR; --only leaves recipes out.")
    if problems:
        raise UsageError("\n".join(problems))
    return found


def arrays(study: Study, members: Sequence[Member], runs: Path, options: Sequence[str]) -> list[list[str]]:
    """A call of launch/submit.py a recipe, its seeds as an array; `options` win over those of the study's file."""
    calls = []
    for name, of_name in groupby(members, lambda member: member.name):
        first, *others = of_name
        call = ["launch/submit.py", str(first.recipe_path), *first.overrides, "--runs", str(runs)]
        seeds = ",".join(str(member.seed) for member in (first, *others))
        calls.append([*call, *shlex.split(study.runs[name].slurm), *options, "--sweep", f"seed={seeds}"])
    return calls
