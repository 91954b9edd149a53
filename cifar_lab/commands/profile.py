"""`cifar-lab profile RECIPE [key=value ...]`: where a training step's time goes, as a table and a trace file."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.cli.command import answer, is_main, make_parser
from cifar_lab.recipe import load_recipe
from cifar_lab.runtime import host
from cifar_lab.runtime.launcher import check_launch
from cifar_lab.training.hang import longest_allowance

EPILOG = """\
examples:
  cifar-lab profile recipes/demo.yaml
  cifar-lab profile recipes/resnet18.yaml train.micro_batch=64 --steps 10
  torchrun --nproc-per-node 2 -m cifar_lab profile recipes/resnet18.yaml
Open the trace at https://ui.perfetto.dev or chrome://tracing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    about = "Measure the time of each part of a training step: a table, the slowest operators, and a trace."
    parser = make_parser("profile", about, EPILOG, recipe=True)
    parser.add_argument("--steps", type=at_least_one, default=20, metavar="N", help="steps to measure (default: 20)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the trace and profile.json (default: profiles/NAME)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return answer(parser, _profile, argv)


def _profile(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.overrides)
    check_launch(os.environ, recipe)
    # Else the profiler reports its own start and end (level 5), and a GPU that is not there.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with host.loading():
        from cifar_lab.profiling.run import render, run_profile
        from cifar_lab.runtime.start import start_world

    hang_timeout = recipe.train.hang_timeout
    with start_world(None if hang_timeout is None else 2 * longest_allowance(hang_timeout), recipe) as world:
        found = run_profile(recipe, world, options.steps, options.out or Path("profiles") / recipe.name)
    if is_main():
        print(json.dumps(found, indent=2, allow_nan=False) if options.json else render(found))
    return 0
