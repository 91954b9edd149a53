"""`cifar-lab recipes [ls | show | copy | diff | new]`: what there is to train, and a beginning of one's own."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.cli.command import answer, make_parser
from cifar_lab.cli.printable import duration, shown
from cifar_lab.cli.table import table
from cifar_lab.errors import UsageError, UserError
from cifar_lab.files.shipped import shipped
from cifar_lab.planning.dry_run import written
from cifar_lab.planning.hardware import Setup
from cifar_lab.planning.make import fastest, make_plan, make_setup
from cifar_lab.recipe import Recipe, book, load_recipe, origins
from cifar_lab.recipe.identity import flatten
from cifar_lab.recipe.named import find_recipe, list_recipes, recipes_folder

EPILOG = """\
examples:
  cifar-lab recipes
  cifar-lab recipes ls --cost --gpu a100-40gb
  cifar-lab recipes show strong/eva02_large
  cifar-lab recipes copy all mine
  cifar-lab recipes diff recipes/demo.yaml runs/demo/0-1a2b3c4d
  cifar-lab recipes new recipes/mine.yaml
`copy` writes recipes/NAME.yaml into DIR (default: this folder), with `all` every recipe and accelerate_configs/.
Name a recipe by its file, by its name below recipes/, or by a run directory.
Columns of `ls`: `cost` is the time of a run on one GPU according to `plan`; `-` means not measured yet, and --cost
measures it (about ten seconds for each recipe, once). `measured` is the test error of completed runs of that recipe
below --runs (accuracy in --json). `expected` comes from the comment in the recipe.
"""
NAMES = "ls none, show RECIPE [key=value ...], copy [NAME|all] [DIR], diff A B, new FILE"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("recipes", "List, show, copy, compare and create recipes.", EPILOG)
    add = parser.add_argument
    add("action", choices=("ls", "show", "copy", "diff", "new"), nargs="?", default="ls", help="default: ls")
    add("names", metavar="NAME", nargs="*", help=NAMES)
    add("--recipes", type=Path, metavar="DIR", help="folder of the recipes (default: ./recipes)")
    add("--runs", metavar="DIR", type=Path, default="runs", help="folder of the runs (default: runs)")
    add("--json", action="store_true", help="ls: print JSON")
    add("--cost", action="store_true", help="ls: also measure the recipes without a known cost")
    add("--gpu", metavar="NAME", default="h100-80gb", help="ls: GPU for the cost (default: h100-80gb)")
    add("--gpus", metavar="N", type=at_least_one, default=1, help="ls: number of GPUs for the cost (default: 1)")
    return answer(parser, _recipes, argv)


def _recipes(options: argparse.Namespace) -> int:
    match options.action, options.names:
        case "ls", []:
            return _ls(options)
        case "show", [name, *overrides]:
            return _show(options, name, overrides)
        case "copy", names if len(names) <= 2:
            return _copy(*names)
        case "diff", [one, other]:
            return _diff(options, one, other)
        case "new", [file]:
            book.write_template(Path(file))
            print(f"{shown(file)}: edit it, then `cifar-lab train {file} --dry-run`")
            return 0
    raise UsageError(f"{options.action} takes other names: {NAMES}")


def _ls(options: argparse.Namespace) -> int:
    setup = make_setup(options.gpus, options.gpu)
    found, broken = [], False
    for name, path in list_recipes(recipes_folder(options.recipes)).items():
        try:
            recipe = load_recipe(path, check_files=False)
        except UserError as error:
            broken = True
            print(f"cifar-lab recipes: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found.append(
            {
                "recipe": name,
                "path": str(path),
                "model": recipe.model.args.get("arch") or recipe.model.name,
                "epochs": recipe.train.epochs,
                "steps": recipe.train.steps,
                **_cost(recipe, setup, measure=options.cost),
                "measured": book.reached(recipe, options.runs),
                "expected": book.expected(path),
            }
        )
    if options.json:
        print(json.dumps({"gpu": options.gpu, "gpus": options.gpus, "recipes": found}, indent=2))
    else:
        print(table(map(_row, found), ["recipe", "model", "size", "length", "cost", "measured", "expected"]))
        print(f"\ncost: of one run on {setup}")
    return 1 if broken else 0


def _cost(recipe: Recipe, setup: Setup, *, measure: bool) -> dict[str, Any]:
    """Parameters and seconds of a run by the plan's fastest way, None for what it does not know."""
    try:
        plan = make_plan(recipe, setup, measure=measure)
    except UserError as error:
        if measure:
            print(f"cifar-lab recipes: {recipe.name}: {str(error).splitlines()[0]}", file=sys.stderr)
        return {"num_parameters": None, "seconds": None, "fits": None}
    best = fastest(plan.options)
    seconds = best and best.timing.step * plan.schedule.total_steps
    return {"num_parameters": plan.footprint.num_parameters, "seconds": seconds, "fits": seconds is not None}


def _row(entry: dict[str, Any]) -> list[str]:
    parameters, seconds = entry["num_parameters"], entry["seconds"]
    return [
        entry["recipe"],
        entry["model"].split(".")[0],
        "-" if parameters is None else f"{parameters / 1e6:.2f} M",
        f"{entry['epochs']:g} epochs" if entry["epochs"] else f"{entry['steps']} steps",
        duration(seconds) if seconds is not None else "does not fit" if entry["fits"] is False else "-",
        book.mean_error(entry["measured"]),
        entry["expected"].partition(";")[0] or "-",  # `show` tells the rest
    ]


def _show(options: argparse.Namespace, name: str, overrides: list[str]) -> int:
    path = find_recipe(name, options.recipes)
    recipe = load_recipe(path, overrides, check_files=False)
    where = origins(path, overrides)
    measured = book.mean_error(book.reached(recipe, options.runs))
    print(shown(path), *book.header(path), f"Measured here: test error {measured}\n", sep="\n  ")
    print(table([(key, written(value), where[key]) for key, value in flatten(recipe).items()]))
    return 0


def _copy(name: str = "all", folder: str = ".") -> int:
    for file in book.shipped_files(name):
        path = Path(folder, file.relative_to(shipped()))  # where the commands in the recipes look for it
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = book.write_new(path, file.read_text(encoding="utf-8"))
        print(f"{shown(path)}{'' if is_new else ': is there already, left as it is'}")
    return 0


def _diff(options: argparse.Namespace, *names: str) -> int:
    paths = [find_recipe(name, options.recipes) for name in names]
    one, other = (flatten(load_recipe(path, check_files=False)) for path in paths)
    keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
    rows = [(key, *(written(side[key]) if key in side else "-" for side in (one, other))) for key in keys]
    print(table(rows, ["", *map(shown, paths)]) if keys else "no difference")
    return 0
