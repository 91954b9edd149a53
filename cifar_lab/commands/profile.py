"""`cifar-lab profile RECIPE [key=value ...]`: where a training step's time goes, as a table and a trace file."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.errors import UserError
from cifar_lab.recipe import Recipe, load_recipe
from cifar_lab.runtime import host
from cifar_lab.training.hang import longest_allowance

EXIT_DIVERGED = 3

EPILOG = """\
examples:
  cifar-lab profile recipes/demo.yaml
  cifar-lab profile recipes/resnet18.yaml train.micro_batch=64 --steps 10 --json
  torchrun --nproc-per-node 2 -m cifar_lab profile recipes/resnet18.yaml
Open the trace at https://ui.perfetto.dev or chrome://tracing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_intermixed_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        recipe = load_recipe(options.recipe, options.overrides)
        found = _run(recipe, options.steps, options.out or Path("profiles") / recipe.name)
    except (UserError, ArithmeticError) as error:
        if _is_main():
            print(f"cifar-lab profile: {error}", file=sys.stderr)
        return error.exit_status if isinstance(error, UserError) else EXIT_DIVERGED
    if _is_main():
        from cifar_lab.profiling.run import render

        print(json.dumps(found, indent=2, allow_nan=False) if options.json else render(found))
    return 0


def _run(recipe: Recipe, steps: int, out: Path) -> dict[str, Any]:
    # Else the profiler reports its own start, and a GPU that is not there.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    with host.loading():
        from cifar_lab.profiling.run import run_profile
        from cifar_lab.runtime.start import start_world

    hang_timeout = recipe.train.hang_timeout
    world = start_world(None if hang_timeout is None else 2 * longest_allowance(hang_timeout))
    try:
        return run_profile(recipe, world, steps, out)
    finally:
        world.close()


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cifar-lab profile",
        description="Where a training step's time goes: a table of its parts, the costly operators, and a trace.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, such as recipes/resnet18.yaml")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the recipe, such as optim.lr=0.05")
    parser.add_argument("--steps", type=at_least_one, default=20, metavar="N", help="steps to time (default: 20)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the trace and profile.json go (default: profiles/NAME)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser
