"""`cifar-lab train RECIPE [key=value ...]`: train a recipe, or continue its run.

Also what launchers start (`accelerate launch -m cifar_lab.train ...`, `torchrun -m cifar_lab.train ...`), and, as
`cifar_lab.train.run(recipe)`, the way in from Python. Nothing here imports torch before the recipe is known to be good.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.errors import UserError
from cifar_lab.recipe import Recipe, RecipeError, load_recipe, parse_recipe
from cifar_lab.rundir import RunDir, RunDirError
from cifar_lab.signals import StopFlag, stop_flag

if TYPE_CHECKING:
    from cifar_lab.runtime.world import World

EXIT_COMPLETED, EXIT_DIVERGED, EXIT_STOPPED = 0, 3, 75

EPILOG = """\
examples:
  cifar-lab train recipes/demo.yaml
  cifar-lab train recipes/resnet18.yaml optim.lr=0.05 seed=1
  cifar-lab train recipes/vit_tiny.yaml --dry-run --world-size 8
  accelerate launch -m cifar_lab.train recipes/vit_tiny.yaml
Starting the same recipe again continues its run. Exit status: 0 completed, 2 recipe or usage, 3 diverged,
75 stopped (start again to continue), 1 otherwise.
"""


class LaunchError(UserError):
    """The launcher did not start what it was asked for; the message names the form that does."""

    exit_status = 2


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its directory and `completed` or `stopped`."""

    run_dir: RunDir
    completed: bool


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: tuple[str, ...] | list[str] = (),
    runs: str = "runs",
    run_dir: str | None = None,
    fresh: bool = False,
) -> Outcome:
    """Train `recipe` (a Recipe, its mapping, or the path of a YAML file) on the processes of this launch.

    Continues the recipe's run if there is one; of a completed one only says so. Raises UserError (RecipeError,
    DataError, ...) and NonFiniteError, both with messages for the user.
    """
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe, list(overrides))
    elif overrides:
        raise RecipeError(["overrides go with the path of a recipe; change the mapping itself instead"])
    elif not isinstance(recipe, Recipe):
        recipe = parse_recipe(dict(recipe))

    _check_launch(os.environ)
    from cifar_lab.runtime.world import World

    with stop_flag() as flag:
        world = World.start()
        try:
            return _run_in(world, recipe, flag, _Place(runs, run_dir, fresh))
        finally:
            world.close()


def _check_launch(environ: Mapping[str, str]) -> None:
    """Refuse the one process that `accelerate launch --cpu` starts however many it was asked for (accelerate 1.15).

    It sets an address only if it was asked for several, and a world size never; our wrappers say theirs themselves.
    """
    on_cpu = environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1") and "ACCELERATE_MIXED_PRECISION" in environ
    told = "WORLD_SIZE" in environ or "CIFAR_LAB_WORLD_SIZE" in environ
    if on_cpu and "MASTER_ADDR" in environ and not told:
        raise LaunchError(
            "`accelerate launch --cpu` was asked for several processes but starts a single one, which would train "
            "alone. On CPUs start with `torchrun --nproc-per-node N`, or `ACCELERATE_USE_CPU=true accelerate launch "
            "--config_file accelerate_configs/cpu.yaml --num_processes N`."
        )


@dataclass(frozen=True)
class _Place:
    """Where the user wants the run directory."""

    runs: str
    run_dir: str | None
    fresh: bool


def _run_in(world: World, recipe: Recipe, flag: StopFlag, place: _Place) -> Outcome:
    from cifar_lab.finish import finish
    from cifar_lab.memory import out_of_memory_advice
    from cifar_lab.session import open_session
    from cifar_lab.trainer import fit

    if not world.is_main:
        logging.getLogger("cifar_lab").setLevel(logging.ERROR)  # rank 0 speaks for all
    run_dir = world.from_main(lambda: _locate(recipe, place))
    status = world.from_main(run_dir.status)
    if status is not None and status.state == "completed":
        if world.is_main:
            print(f"{run_dir.path} is completed already; --fresh starts another beside it", file=sys.stderr)
        return Outcome(run_dir, completed=True)
    _check_shared(world, run_dir)
    session = None
    try:
        session = open_session(recipe, run_dir, world, flag)
        completed = fit(session) and finish(session)
        if not completed and world.is_main:
            session.progress.message(f"stopped at step {session.state.step}; start again to continue")
        return Outcome(run_dir, completed)
    except BaseException as error:
        advice = out_of_memory_advice(error, recipe, session.schedule if session else None)
        if world.is_main:
            _write_failure(run_dir, advice or str(error) or type(error).__name__, world.world_size)
        if advice:
            if not world.is_main:  # this process alone knows; errors that all share are told by rank 0
                print(f"process {world.rank}: {advice}", file=sys.stderr, flush=True)
            raise UserError(advice) from error
        raise
    finally:
        if session is not None:
            session.close()


def _locate(recipe: Recipe, place: _Place) -> RunDir:
    run_dir = RunDir.locate(recipe, runs=place.runs, run_dir=place.run_dir, fresh=place.fresh)
    status = run_dir.status() if run_dir.path.is_dir() else None
    if status is None or status.state != "completed":  # what a completed run was started with stays on record
        run_dir.create(recipe)
    return run_dir


def _check_shared(world: World, run_dir: RunDir) -> None:
    """Every process must see what rank 0 writes."""
    token = world.from_main(lambda: os.urandom(8).hex())
    world.from_main(lambda: run_dir.write_token(token))

    def read() -> None:
        if run_dir.read_token() != token:
            raise RunDirError(
                f"the run directory {run_dir.path} is not shared: process {world.rank} does not see what process 0 "
                "wrote there; name a folder on a shared file system with --runs DIR"
            )

    world.everyone(read)


def _write_failure(run_dir: RunDir, reason: str, world_size: int) -> None:
    """Say in status.json why the run failed, keeping the step it had reached."""
    try:
        last = run_dir.status()
        step, total = (last.step, last.total_steps) if last else (0, 0)
        run_dir.write_status("failed", step, total, reason=reason, world_size=world_size)
    except (OSError, ValueError) as problem:  # the error itself matters more
        print(f"cannot write {run_dir.path / 'status.json'}: {problem}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_intermixed_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("cifar_lab").setLevel(logging.INFO)
    place = {"runs": arguments.runs, "run_dir": arguments.run_dir, "fresh": arguments.fresh}
    try:
        if arguments.dry_run:
            from cifar_lab import dry_run

            return dry_run.show(
                arguments.recipe, arguments.overrides, world_size=arguments.world_size, as_json=arguments.json, **place
            )
        outcome = run(arguments.recipe, overrides=arguments.overrides, **place)
    except UserError as error:
        return _fail(error, error.exit_status)
    except ArithmeticError as error:
        return _fail(error, EXIT_DIVERGED)
    if not outcome.completed:
        return EXIT_STOPPED
    if os.environ.get("RANK", "0") == "0":
        print(outcome.run_dir.path)
    return EXIT_COMPLETED


def _fail(error: Exception, status: int) -> int:
    """Print what to mend, once for all processes of this launch."""
    if os.environ.get("RANK", "0") == "0":
        print(error, file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cifar-lab train",
        description="Train a recipe, or continue its run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, such as recipes/resnet18.yaml")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the recipe, such as optim.lr=0.05")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run directories are made (default: runs)")
    parser.add_argument("--run-dir", metavar="DIR", help="the run directory itself")
    parser.add_argument("--fresh", action="store_true", help="start a new run beside those that are there")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and its arithmetic, then end")
    parser.add_argument("--json", action="store_true", help="with --dry-run: for machines")
    parser.add_argument(
        "--world-size", metavar="N", type=int, default=1, help="with --dry-run: for so many processes (default: 1)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
