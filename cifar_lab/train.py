"""`cifar-lab train RECIPE [key=value ...]`: train a recipe, or continue its run.

Also what launchers start (`accelerate launch -m cifar_lab.train ...`, `torchrun -m cifar_lab.train ...`), and, as
`cifar_lab.train.run(recipe)`, the way in from Python. Nothing here imports torch before the recipe is known to be good.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.cli.command import answer, is_main, make_parser

if TYPE_CHECKING:
    from cifar_lab.recipe import Recipe
    from cifar_lab.rundir.directory import Outcome
    from cifar_lab.rundir.placement import Place

EXIT_STOPPED = 75

EPILOG = """\
examples:
  cifar-lab train recipes/demo.yaml
  cifar-lab train recipes/resnet18.yaml optim.lr=0.05 seed=1
  cifar-lab train recipes/vit_tiny.yaml --dry-run --world-size 8
  accelerate launch -m cifar_lab.train recipes/vit_tiny.yaml
The same command again continues the run.
Exit status: 0 completed, 1 another failure, 2 wrong recipe or call, 3 training diverged, 75 stopped (the same command
continues).
"""


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: tuple[str, ...] | list[str] = (),
    runs: str = "runs",
    run_dir: str | None = None,
    fresh: bool = False,
    accept_micro_batch: bool = False,
) -> Outcome:
    """Train `recipe` (a Recipe, its mapping, or the path of a YAML file) on the processes of this launch.

    Continues the recipe's run if there is one; of a completed one only says so. `accept_micro_batch`: at another
    micro-batch too, where that changes the result. Raises UserError (RecipeError, DataError, NonFiniteError, ...) with
    a message for the user.
    """
    # Here, so that `main` can name a package that is not installed.
    from cifar_lab.cluster.place import world_of_step
    from cifar_lab.recipe import Recipe, RecipeError, load_recipe, parse_recipe
    from cifar_lab.rundir.placement import Place, startable
    from cifar_lab.runtime import host
    from cifar_lab.runtime.launcher import check_launch
    from cifar_lab.runtime.signals import die_with_parent, stop_flag
    from cifar_lab.training.hang import longest_allowance

    os.environ.update(world_of_step(os.environ))
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    place = Place(runs, run_dir, fresh and not restarted, accept_micro_batch)
    if isinstance(recipe, (str, Path)):
        recipe = startable(partial(load_recipe, recipe, list(overrides)), place)
    elif overrides:
        raise RecipeError(["overrides go with the path of a recipe; change the mapping itself instead"])
    elif not isinstance(recipe, Recipe):
        recipe = startable(partial(parse_recipe, dict(recipe)), place)

    check_launch(os.environ, recipe)
    if restarted:
        _stay_ended(recipe, place)
    with stop_flag() as flag:
        die_with_parent()
        with host.loading():
            from cifar_lab.runtime.start import start_world
            from cifar_lab.training.start import start

        hang_timeout = recipe.train.hang_timeout
        # The watchdog knows who is at fault, so it must come before the backend's own, blind timeout.
        with start_world(None if hang_timeout is None else 2 * longest_allowance(hang_timeout), recipe) as world:
            return start(world, recipe, flag, place)


def _stay_ended(recipe: Recipe, place: Place) -> None:
    """End torchrun, which starts anew whatever ended, and this process where the last start was not cut off."""
    from cifar_lab.rundir.directory import RunDir

    status = RunDir.locate(recipe, runs=place.runs, run_dir=place.run_dir).status()
    if status is not None and status.state in ("failed", "stopped"):
        if is_main():
            print(f"not started again, since the run {status.state}: {status.reason}", file=sys.stderr, flush=True)
        if os.environ["LOCAL_RANK"] == "0":
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)  # until torchrun ends it: to end by itself would be one more failure
        sys.exit(EXIT_STOPPED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("train", "Train a recipe or continue its run.", EPILOG, recipe=True)
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run directories are made (default: runs)")
    parser.add_argument("--run-dir", metavar="DIR", help="the run directory, instead of one below --runs")
    parser.add_argument("--fresh", action="store_true", help="start a new run; keep the old one")
    parser.add_argument(
        "--accept-micro-batch", action="store_true", help="continue although another micro-batch changes the result"
    )
    parser.add_argument("--dry-run", action="store_true", help="check and print recipe, batch and model; train nothing")
    parser.add_argument("--json", action="store_true", help="with --dry-run: print JSON")
    parser.add_argument(
        "--world-size",
        metavar="N",
        type=at_least_one,
        default=1,
        help="with --dry-run: number of processes (default: 1)",
    )
    return answer(parser, _train, argv)


def _train(arguments: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("cifar_lab").setLevel(logging.INFO)
    place = {"runs": arguments.runs, "run_dir": arguments.run_dir, "fresh": arguments.fresh}
    if arguments.dry_run:
        from cifar_lab.planning import dry_run

        return dry_run.show(
            arguments.recipe, arguments.overrides, world_size=arguments.world_size, as_json=arguments.json, **place
        )
    outcome = run(
        arguments.recipe,
        overrides=arguments.overrides,
        accept_micro_batch=arguments.accept_micro_batch,
        **place,
    )
    if not outcome.completed:
        from cifar_lab.runtime.signals import end_quietly

        end_quietly()
        return EXIT_STOPPED
    if is_main():
        print(outcome.run_dir.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
