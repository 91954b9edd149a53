"""`cifar-lab plan RECIPE --gpus 8 --gpu h100-80gb`: what fits, how long it takes, how to start it.

Needs neither a GPU nor the data nor the weights, and does not import torch: a child process measures the model once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from cifar_lab.data.sizes import DataSizes
from cifar_lab.errors import UserError
from cifar_lab.planning.describe import describe
from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import DEFAULT_NODE_LINK, GPUS, LINKS, Gpu, PlanError, find_gpu, find_link
from cifar_lab.planning.inputs import known_sizes, model_footprint, pictures_of
from cifar_lab.planning.memory import STRATEGIES
from cifar_lab.planning.network import Topology
from cifar_lab.planning.options import Option, Setup, divisors, fastest, options
from cifar_lab.planning.remedy import nearest_that_works
from cifar_lab.planning.render import render
from cifar_lab.recipe import Recipe, load_recipe
from cifar_lab.recipe.schedule import Schedule

# Of the peak rate, over all FLOPs that are executed; not measured: large transformers on such GPUs reach 0.3 to 0.5.
UTILISATION = 0.4

EPILOG = f"""\
GPUs: {", ".join(GPUS)}, and cpu (a process on this machine)
links: {", ".join(LINKS)}, or a number of Gbit/s

examples:
  cifar-lab plan recipes/eva02_large.yaml --gpus 8 --gpu h100-80gb
  cifar-lab plan recipes/eva02_large.yaml --gpus 4 --gpu a100-40gb --nodes 2 --link eth-25g --strategy zero3
  cifar-lab plan recipes/vit_tiny.yaml train.global_batch=1024 --gpus 2 --gpu rtx4090-24gb --json
Exit status: 0 if a way to run it was found, 2 with the nearest set-up that works if not.
"""


def make_setup(gpus: int, gpu: str, nodes: int, link: str, utilisation: float) -> Setup:
    """The set-up of these options. Raises PlanError."""
    for name, value in (("--gpus", gpus), ("--nodes", nodes)):
        if value < 1:
            raise PlanError(f"{name} {value}: there must be at least 1; try {name} 1")
    if not 0 < utilisation <= 1:
        raise PlanError(f"--mfu {utilisation:g}: it is a part of the peak rate, above 0 and at most 1, such as 0.4")
    device = "cpu" if gpu == "cpu" else "cuda"
    found = _this_cpu(gpus) if device == "cpu" else find_gpu(gpu)
    topology = Topology(gpus, nodes, LINKS[found.link], find_link(link))
    return Setup(found, topology, utilisation, device)


def _this_cpu(processes: int) -> Gpu:
    """One of `processes` on this machine; its rates are guesses."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = (os.cpu_count() or 1) / processes
    return Gpu("cpu", memory // processes, None, 4e10 * cores, 1e10, "pcie3")


def plan(
    recipe: Recipe, setup: Setup, strategy: str, micro_batch: int | None
) -> tuple[DataSizes, Footprint, list[Option], Schedule]:
    """All options for a recipe on a set-up. Raises PlanError and ScheduleError for what cannot be laid out."""
    sizes = known_sizes(recipe)
    schedule = Schedule.make(recipe, sizes.num_train, setup.topology.world_size)
    divisors(recipe, setup.topology.world_size, micro_batch)  # before anything is measured
    footprint = model_footprint(recipe, sizes)
    strategies = STRATEGIES if strategy == "all" else (strategy,)
    found = options(
        recipe, footprint, pictures_of(recipe, sizes), setup, strategies=strategies, micro_batch=micro_batch
    )
    return sizes, footprint, found, schedule


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_intermixed_args(argv)
    try:
        setup = make_setup(arguments.gpus, arguments.gpu, arguments.nodes, arguments.link, arguments.mfu)
        recipe = load_recipe(arguments.recipe, arguments.overrides, check_files=False)
        sizes, footprint, found, schedule = plan(recipe, setup, arguments.strategy, arguments.micro_batch)
        description: dict[str, Any] = describe(
            (arguments.recipe, arguments.overrides), recipe, sizes.num_train, footprint, setup, found, schedule
        )
        if fastest(found) is None:
            raise PlanError(nearest_that_works(recipe, footprint, pictures_of(recipe, sizes), setup, found))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(description, indent=2) if arguments.json else render(description))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cifar-lab plan",
        description="What fits on which GPUs, how long a run takes, and the command to start it; needs no GPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, such as recipes/eva02_large.yaml")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the recipe, such as optim.lr=0.05")
    parser.add_argument("--gpus", metavar="N", type=int, default=1, help="GPUs of one node (default: 1)")
    parser.add_argument("--gpu", metavar="NAME", default="h100-80gb", help="their kind (default: h100-80gb)")
    parser.add_argument("--nodes", metavar="N", type=int, default=1, help="nodes (default: 1)")
    parser.add_argument(
        "--link", metavar="NAME", default=DEFAULT_NODE_LINK, help=f"of a node to others (default: {DEFAULT_NODE_LINK})"
    )
    parser.add_argument("--strategy", choices=["all", *STRATEGIES], default="all", help="default: all")
    parser.add_argument("--micro-batch", metavar="N", type=int, help="this one (default: the largest that fits)")
    parser.add_argument(
        "--mfu", metavar="PART", type=float, default=UTILISATION, help=f"utilisation (default: {UTILISATION})"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser
