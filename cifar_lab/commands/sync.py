"""`cifar-lab sync RUN ...`: send to trackers what they have not got yet of runs.

A run directory is one run of each tracker for ever. Its metrics.jsonl is replayed, so runs that were offline,
interrupted or half sent become whole, and doing it twice changes nothing.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.command import answer, make_parser
from cifar_lab.errors import UserError
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import find_runs
from cifar_lab.tracking.record import TRACKERS, identify, trackers
from cifar_lab.tracking.tracker import Mirror

EPILOG = """\
examples:
  cifar-lab sync runs/resnet18/0-1a2b3c4d
  cifar-lab sync runs                       (all runs in a folder)
  cifar-lab sync runs --project cifar-lab   (recipes without a project)
  cifar-lab sync runs --to tensorboard      (instead of the recipe's trackers)
A run that is still training is sent as far as it is, unless it sends itself. So a machine with network can send the
runs of a machine without network, as often as you like. Server and key are set as for W&B: WANDB_BASE_URL,
WANDB_API_KEY or `wandb login`.
Exit status: 0 everything was sent, 1 something was not sent, 2 wrong call.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser(
        "sync", "Send runs to Weights & Biases or other trackers; only what is missing is sent.", EPILOG
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run directory or a folder of runs")
    parser.add_argument(
        "--to",
        metavar="NAME",
        choices=TRACKERS,
        action="append",
        help=f"one of {', '.join(TRACKERS)}; may be repeated (default: the recipe's, else wandb)",
    )
    parser.add_argument("--project", metavar="NAME", help="project for runs whose recipe names none")
    parser.add_argument("--entity", metavar="NAME", help="team or user (default: recipe, else owner of the key)")
    return answer(parser, _sync, argv)


def _sync(options: argparse.Namespace) -> int:
    failed = 0
    for run in find_runs(options.runs):
        try:
            print(f"{run}: {_send(run, options)}", flush=True)
        except UserError as error:
            failed = 1
            print(f"{run}: not sent: {error}", file=sys.stderr, flush=True)
    return failed


def _send(folder: Path, options: argparse.Namespace) -> str:
    """Send one run to its trackers, by a process for each, and return what they say. Raises UserErrors."""
    recipe = RunDir.open(folder).recipe()
    names = options.to or trackers(recipe) or (["wandb"] if options.project else [])
    if not names:
        raise UserError("its recipe names no tracking.wandb_project: add --project NAME, or --to TRACKER")
    said: list[str] = []
    failed = False
    project = options.project or recipe.tracking.wandb_project or recipe.name
    for name in names:
        try:
            identity = identify(folder, project, options.entity or recipe.tracking.wandb_entity)
            if options.project and identity.project != options.project:
                raise UserError(f"it is a run of the project {identity.project} already; leave --project away")
            mirror = Mirror(name, folder, None, said.append)
            mirror.ask()
            failed |= mirror.end(math.inf) != 0
        except (OSError, UserError) as error:
            full = isinstance(error, OSError) and f"cannot write {error.filename}: {error.strerror}; free some space"
            said.append(full or str(error))
            failed = True
    if failed:
        raise UserError("; ".join(said))
    return "; ".join(said)
