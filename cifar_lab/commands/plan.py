"""`cifar-lab plan RECIPE --gpus 8 --gpu h100-80gb`: what fits, how long it takes, how to start it.

Needs neither a GPU nor the data nor the weights, and does not import torch: a child process measures the model once.
"""

import argparse
import json
from collections.abc import Sequence

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.cli.command import answer, make_parser
from cifar_lab.errors import UsageError
from cifar_lab.planning.describe import describe, render
from cifar_lab.planning.hardware import DEFAULT_NODE_LINK, GPUS, LINKS, UTILISATION
from cifar_lab.planning.make import fastest, make_plan, make_setup
from cifar_lab.planning.memory import STRATEGIES
from cifar_lab.planning.remedy import nearest_that_works
from cifar_lab.recipe import load_recipe

EPILOG = f"""\
GPUs: {", ".join(GPUS)}, and cpu (a process on this machine).
links: {", ".join(LINKS)}, or a number of Gbit/s.

examples:
  cifar-lab plan recipes/eva02_large.yaml --gpus 8 --gpu h100-80gb
  cifar-lab plan recipes/eva02_large.yaml --gpus 4 --nodes 2 --link eth-25g
Exit status: 0 if the recipe fits, 2 if it does not; the message then names the nearest set-up that works.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    about = "Plan a run: memory on each GPU, time, and the command that starts it. Needs no GPU."
    parser = make_parser("plan", about, EPILOG, recipe=True)
    add = parser.add_argument
    add("--gpus", metavar="N", type=at_least_one, default=1, help="GPUs in one node (default: 1)")
    add("--gpu", metavar="NAME", default="h100-80gb", help="GPU type, see below (default: h100-80gb)")
    add("--nodes", metavar="N", type=at_least_one, default=1, help="number of nodes (default: 1)")
    add("--link", metavar="NAME", default=DEFAULT_NODE_LINK, help="link between nodes (default: %(default)s)")
    strategies = ["all", *STRATEGIES]
    add("--strategy", metavar="NAME", choices=strategies, default="all", help=", ".join(strategies))
    add("--mfu", metavar="PART", type=float, default=UTILISATION, help="part of peak FLOP/s (default: %(default)s)")
    add("--json", action="store_true", help="print JSON")
    return answer(parser, _plan, argv)


def _plan(arguments: argparse.Namespace) -> int:
    setup = make_setup(arguments.gpus, arguments.gpu, arguments.nodes, arguments.link, arguments.mfu)
    recipe = load_recipe(arguments.recipe, arguments.overrides, check_files=False)
    plan = make_plan(recipe, setup, arguments.strategy)
    if fastest(plan.options) is None:
        raise UsageError(nearest_that_works(recipe, plan.footprint, plan.sizes, setup, plan.options))
    description = describe(plan, arguments.recipe, arguments.overrides)
    print(json.dumps(description, indent=2) if arguments.json else render(description))
    return 0
