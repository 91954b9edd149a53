"""Where a run lives, whether a directory is the recipe's own, and which runs lie below a folder."""

import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe, RecipeError, experiment_id, identity_fields, load_recipe
from cifar_lab.recipe.identity import flatten, meaning

# What a directory named by --run-dir may hold before its first recipe.yaml (logs of the launcher, say).
EXPECTED_BEFORE_START = re.compile(
    r"STOP|heartbeat|attempt\.json|job\.json|requeues\.jsonl|logs?|.*\.(log|out|err)|\..*"
)
# Any of them makes a run directory: a recipe that was lost must not hide the rest.
SIGNS = ("recipe.yaml", "status.json", "metrics.jsonl", "summary.json")
SIGNS_OF_A_JOB = (*SIGNS, "attempt.json", "job.json", "requeues.jsonl")  # which may be all that is there yet


@dataclass(frozen=True)
class Place:
    """Where the user wants the run, see RunDir.locate, and whether it may go on there at another micro-batch."""

    runs: str = "runs"
    run_dir: str | None = None
    fresh: bool = False
    accept_micro_batch: bool = False


def default_path(recipe: Recipe, runs: Path, *, fresh: bool) -> Path:
    """`runs/<name>/<seed>-<experiment id>`, `.2`, ...: the latest that exists (else the first); `fresh`: the next."""
    parent, name = runs / recipe.name, f"{recipe.seed}-{experiment_id(recipe)}"
    pattern = re.compile(re.escape(name) + r"(?:\.([1-9][0-9]*))?")
    entries = os.listdir(parent) if parent.is_dir() else []
    numbers = [int(match[1] or 1) for match in map(pattern.fullmatch, entries) if match]
    number = max(numbers, default=0 if fresh else 1) + fresh
    return parent / (name if number == 1 else f"{name}.{number}")


def check_identity(path: Path, recipe: Recipe, *, named: bool) -> None:
    """Raise UsageError where another experiment lives, or, in a place the user named, something else entirely."""
    way_out = "choose another --run-dir" if named else "start a new run with --fresh"
    if not (path / "recipe.yaml").exists():
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file, not a directory; {way_out}")
        foreign = _foreign_files(path) if named else []
        if foreign:
            raise UsageError(f"{path} has no recipe.yaml but holds {', '.join(foreign)}; {way_out}")
        return
    try:
        stored = load_recipe(path / "recipe.yaml", check_files=False)
    except ValueError as error:
        raise UsageError(f"the recipe of the run in {path} cannot be read; {way_out}\n{error}") from error
    differences = _differences(stored, recipe)
    if differences:
        raise UsageError(f"{path} holds another experiment; {way_out}\n" + "\n".join(f"  {d}" for d in differences))


def _foreign_files(path: Path) -> list[str]:
    """Up to three names in `path` that no start of a run explains."""
    names = sorted(os.listdir(path)) if path.is_dir() else []
    return [name for name in names if not EXPECTED_BEFORE_START.fullmatch(name)][:3]


def _differences(stored: Recipe, recipe: Recipe) -> list[str]:
    """One line for each identity field, and the name, in which two recipes differ."""
    there, here = ({k: meaning(k, v) for k, v in flatten(side).items()} for side in (stored, recipe))
    keys = dict.fromkeys(["name", *identity_fields(stored), *identity_fields(recipe)])
    return [
        f"{key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in keys if there.get(key) != here.get(key)
    ]


def startable(load: Callable[..., Recipe], place: Place) -> Recipe:
    """What `load(check_files=...)` gives; initial weights may be gone where a checkpoint is. Raises RecipeError."""
    try:
        return load()
    except RecipeError:
        recipe = load(check_files=False)
        path = Path(place.run_dir or default_path(recipe, Path(place.runs), fresh=place.fresh))
        if not any(path.glob("checkpoints/step_*/manifest.json")):
            raise
        return recipe


def find_runs(paths: Collection[Path]) -> list[Path]:
    """Run directories among `paths` and below them, in order, each once; raises UsageError where there is none.

    Symbolic links are followed, each directory once. A report's own folder, which `runs/*` names too, is passed over.
    """
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a directory; give run directories, or a folder of them such as runs")
        if not runs_below([path]) and not (path / "report.html").exists():
            raise UsageError(f"no run in {path}: no recipe.yaml in it or below it")
    found = runs_below(paths)
    if not found:
        raise UsageError("no run there: give run directories, or a folder of them such as runs")
    return found


def find_run(path: str | os.PathLike[str]) -> Path:
    """The run directory at `path`, or the only one below it; raises UsageError, which lists several."""
    top = Path(path).absolute()
    found = runs_below([top])
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"{path} is not a run directory, and no run is below it")
    names = [f"  {Path(path, run.relative_to(top))}" for run in found]
    names[10:] = [f"  and {len(found) - 10} more"] if len(found) > 10 else []
    raise UsageError("\n".join([f"{path} holds {len(found)} runs; name one of them:", *names]))


def runs_below(tops: Iterable[Path], signs: Collection[str] = SIGNS) -> list[Path]:
    """Run directories at or below each of `tops`, each once; not those in another one or in a hidden folder."""
    seen: set[Path] = set()
    found = []
    for top in tops:
        for folder, folders, files in os.walk(top, followlinks=True):
            place = Path(folder).resolve()
            known, run = place in seen, not set(signs).isdisjoint(files)
            seen.add(place)
            folders[:] = [] if known or run else sorted(name for name in folders if not name.startswith("."))
            if run and not known:
                found.append(Path(folder).absolute())
    return found
