"""`cifar-lab sync RUN ...`: send to Weights & Biases what it has not got yet of runs.

A run directory is one W&B run for ever. Its metrics.jsonl is replayed from where the server's history ends, so runs
that were offline, interrupted or half sent become whole, and doing it twice changes nothing.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.command import answer, make_parser
from cifar_lab.errors import UserError
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import find_runs
from cifar_lab.tracking.tracker import sender
from cifar_lab.tracking.wandb.record import identify

EPILOG = """\
examples:
  cifar-lab sync runs/resnet18/0-1a2b3c4d
  cifar-lab sync runs                       (all runs in a folder)
  cifar-lab sync runs --project cifar-lab   (recipes without a project)
A run that is still training is sent as far as it is, unless it sends itself. So a machine with network can send the
runs of a machine without network, as often as you like. Server and key are set as for W&B: WANDB_BASE_URL,
WANDB_API_KEY or `wandb login`.
Exit status: 0 everything was sent, 1 something was not sent, 2 wrong call.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("sync", "Send runs to Weights & Biases; only what is missing there is sent.", EPILOG)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run directory or a folder of runs")
    parser.add_argument("--project", metavar="NAME", help="project for runs whose recipe names none")
    parser.add_argument("--entity", metavar="NAME", help="team or user (default: recipe, else owner of the key)")
    return answer(parser, _sync, argv)


def _sync(options: argparse.Namespace) -> int:
    failed = 0
    for run in find_runs(options.runs):
        try:
            print(f"{run}: {_send(run, options)}", flush=True)
        except UserError as error:
            failed += 1
            print(f"{run}: not sent: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _send(folder: Path, options: argparse.Namespace) -> str:
    """Send one run, in a process of its own, and return what it says. Raises UserErrors."""
    tracking = RunDir.open(folder).recipe().tracking
    project = options.project or tracking.wandb_project
    if not project:
        raise UserError("its recipe names no tracking.wandb_project: add --project NAME")
    command, environment = sender(folder)
    try:
        identity = identify(folder, project, options.entity or tracking.wandb_entity)
        if options.project and identity.project != options.project:
            raise UserError(f"it is a run of the project {identity.project} already; leave --project away")
        with open(folder / "wandb.log", "ab") as log:
            done = subprocess.run(
                command,
                input="finish\n",
                stdout=subprocess.PIPE,
                stderr=log,
                env={**environment, "WANDB_MODE": "online"},
                text=True,
                check=False,
            )
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}; free some space") from error
    said = "; ".join(done.stdout.splitlines())
    if done.returncode:
        raise UserError(said or f"status {done.returncode}, see {folder / 'wandb.log'}")
    return said
