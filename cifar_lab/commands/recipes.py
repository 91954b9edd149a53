"""`cifar-lab recipes [ls | show NAME | diff A B | new FILE]`: what there is to train, and a beginning of one's own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_lab.cli.printable import duration, shown
from cifar_lab.cli.table import table
from cifar_lab.commands.recipe_template import write_template
from cifar_lab.errors import UserError
from cifar_lab.planning.costs import Cost, cost
from cifar_lab.planning.make import make_setup
from cifar_lab.recipe import Recipe, load_recipe, origins
from cifar_lab.recipe.book import expected, find_recipe, header, list_recipes, reached, recipes_folder
from cifar_lab.recipe.identity import flatten

COLUMNS = ("recipe", "model", "parameters", "length", "cost", "measured", "expected")

EPILOG = """\
examples:
  cifar-lab recipes
  cifar-lab recipes ls --cost --gpu a100-40gb
  cifar-lab recipes show strong/eva02_large
  cifar-lab recipes diff vit_tiny vit_tiny_scratch
  cifar-lab recipes diff recipes/demo.yaml runs/demo/0-1a2b3c4d
  cifar-lab recipes new recipes/mine.yaml
A recipe is named by its file, by its place below recipes/, or by a run. `cost` is what `cifar-lab plan` says of one
GPU; what it has not measured yet is `-`, and --cost measures it (about ten seconds a recipe, kept). `measured` is the
test accuracy of runs of exactly that recipe below --runs, `expected` what its own comment says.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "ls")
    options = _parser().parse_args(arguments)
    try:
        if options.action == "ls":
            return _ls(options)
        if options.action == "show":
            _show(options)
        elif options.action == "diff":
            _diff(options)
        else:
            write_template(options.file)
            print(f"{shown(options.file)}: edit it, then `cifar-lab train {options.file} --dry-run`")
        return 0
    except UserError as error:
        print(f"cifar-lab recipes: {error}", file=sys.stderr)
        return error.exit_status


def _ls(options: argparse.Namespace) -> int:
    setup = make_setup(options.gpus, options.gpu)
    folder = recipes_folder(options.recipes)
    found: list[dict[str, Any]] = []
    broken = 0
    for name, path in list_recipes(folder).items():
        try:
            recipe = load_recipe(path, check_files=False)
        except UserError as error:
            broken += 1
            print(f"cifar-lab recipes: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        if options.cost and sys.stderr.isatty():
            print(f"planning {name} ...", file=sys.stderr)
        costs = cost(recipe, setup, measure=options.cost)
        if options.cost and costs.seconds is None:
            print(f"cifar-lab recipes: {name}: {costs.problem}", file=sys.stderr)
        found.append(_entry(name, path, recipe, costs, Path(options.runs)))
    if options.json:
        print(json.dumps({"gpu": options.gpu, "gpus": options.gpus, "recipes": found}, indent=2))
    elif found:
        print(_table(found, f"{options.gpus} x {options.gpu}"))
    else:
        print(f"no recipe in {folder}", file=sys.stderr)
    return 1 if broken or not found else 0


def _entry(name: str, path: Path, recipe: Recipe, costs: Cost, runs: Path) -> dict[str, Any]:
    measured = reached(recipe, runs)
    train = recipe.train
    return {
        "recipe": name,
        "path": str(path),
        "model": recipe.model.args.get("arch") or recipe.model.name,
        "num_parameters": costs.num_parameters,
        "epochs": train.epochs,
        "steps": train.steps,
        "seconds": costs.seconds,
        "problem": costs.problem,
        "measured": list(measured.accuracies),
        "reached": str(measured),
        "expected": expected(path),
    }


def _table(entries: Sequence[dict[str, Any]], gpus: str) -> str:
    rows = []
    for entry in entries:
        parameters, length = entry["num_parameters"], entry["epochs"] and f"{entry['epochs']:g} epochs"
        price = "-" if entry["seconds"] is None else duration(entry["seconds"])
        rows.append(
            [
                entry["recipe"],
                entry["model"].split(".")[0],
                "-" if parameters is None else f"{parameters / 1e6:.2f} M",
                length or f"{entry['steps']} steps",
                "does not fit" if entry["problem"] == "does not fit" else price,
                entry["reached"],
                entry["expected"] or "-",
            ]
        )
    return table(rows, [*COLUMNS[:4], f"cost, {gpus}", *COLUMNS[5:]])


def _show(options: argparse.Namespace) -> None:
    path = find_recipe(options.recipe, options.recipes)
    recipe = load_recipe(path, options.overrides, check_files=False)
    where = origins(path, options.overrides)
    measured = reached(recipe, Path(options.runs))
    values = flatten(recipe)
    if options.json:
        fields = {key: {"value": value, "origin": where[key]} for key, value in values.items()}
        answer = {
            "path": str(path),
            "expected": expected(path),
            "measured": list(measured.accuracies),
            "recipe": fields,
        }
        print(json.dumps(answer, indent=2))
        return
    print("\n".join([shown(path), *(f"  {line}" for line in header(path)), f"  Measured here: {measured}", ""]))
    print(table([(key, _text(value), where[key]) for key, value in values.items()]))


def _diff(options: argparse.Namespace) -> None:
    paths = [find_recipe(name, options.recipes) for name in (options.a, options.b)]
    one, other = (flatten(load_recipe(path, check_files=False)) for path in paths)
    keys = [key for key in [*one, *(key for key in other if key not in one)] if one.get(key) != other.get(key)]
    if options.json:
        print(json.dumps({key: [one.get(key), other.get(key)] for key in keys}, indent=2))
        return
    rows = [(key, *(_text(side[key]) if key in side else "-" for side in (one, other))) for key in keys]
    print(table(rows, ["", shown(paths[0]), shown(paths[1])]) if keys else "no difference")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--recipes", type=Path, metavar="DIR", help="their folder (default: ./recipes)")
    shared.add_argument("--runs", metavar="DIR", default="runs", help="where runs are (default: runs)")
    shared.add_argument("--json", action="store_true", help="for machines")
    listing = argparse.ArgumentParser(add_help=False)
    listing.add_argument("--cost", action="store_true", help="measure what the plan does not know yet")
    listing.add_argument("--gpu", metavar="NAME", default="h100-80gb", help="of the cost (default: h100-80gb)")
    listing.add_argument("--gpus", metavar="N", type=int, default=1, help="how many of them (default: 1)")
    parser = argparse.ArgumentParser(
        prog="cifar-lab recipes",
        description="The recipes that there are: list, show, compare, begin one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ls | show | diff | new", required=True)
    actions.add_parser("ls", parents=[shared, listing], help="all of them, a line each; what no action means")
    show = actions.add_parser("show", parents=[shared], help="every value of one, and where it comes from")
    show.add_argument("recipe", metavar="RECIPE")
    show.add_argument("overrides", metavar="key=value", nargs="*")
    diff = actions.add_parser("diff", parents=[shared], help="the fields in which two differ")
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", metavar="B")
    new = actions.add_parser("new", help="write a commented recipe to begin with")
    new.add_argument("file", metavar="FILE", type=Path)
    return parser


if __name__ == "__main__":
    from cifar_lab.commands import dispatch as cli

    sys.exit(cli.main(["recipes", *sys.argv[1:]]))
