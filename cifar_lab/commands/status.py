"""`cifar-lab status`: what runs do now, as a table or for machines, and whether a batch job starts or comes back."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.command import answer, make_parser
from cifar_lab.errors import UsageError
from cifar_lab.rundir.placement import SIGNS_OF_A_JOB, Place, runs_below
from cifar_lab.status import requeue
from cifar_lab.status.slurm_queue import Queue, read_queue
from cifar_lab.status.state import RunState, read_run
from cifar_lab.status.table import show

EPILOG = """\
examples:
  cifar-lab status
  cifar-lab status runs/resnet18 --watch
  cifar-lab status recipes/resnet18.yaml seed=1
  cifar-lab status --json --all
States: running, starting, queued (its job waits), completed, stopped, interrupted, lost (its files say running, but its
processes are gone), failed, corrupt, new.
Exit status with --decide start: 0 start, 1 do not start, 2 wrong recipe or call, 3 already completed. With --decide
end: 0 nothing is left to do, 75 put the job back into the queue, 1 failed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    about = "Show runs and their jobs: step, validation error, speed, time left, and why a run ended."
    parser = make_parser("status", about, EPILOG)
    parser.add_argument(
        "what",
        metavar="RUN|FOLDER|RECIPE [key=value ...]",
        nargs="*",
        help="run directories, folders of runs, or a recipe with its overrides (default: the folder of --runs)",
    )
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where runs are (default: runs)")
    parser.add_argument("--run-dir", metavar="DIR", help="the run directory, instead of one below --runs")
    parser.add_argument("--fresh", action="store_true", help="the new run that `train --fresh` of this job makes")
    parser.add_argument("--all", action="store_true", help="also show runs that ended more than a day ago")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--watch", action="store_true", help="refresh every two seconds until all end")
    forms.add_argument("--json", action="store_true", help="print JSON; for a folder all its runs, also old ones")
    forms.add_argument("--where", action="store_true", help="print the run directory of a recipe, nothing else")
    forms.add_argument("--decide", choices=("start", "end"), help="for batch jobs: answer by exit status, see below")
    parser.add_argument("--exit-status", metavar="N", type=int, default=0, help="with --decide end: that of the step")
    for option in ("--nproc", "--with", "--strategy"):  # a batch job hands on all that it was given
        parser.add_argument(option, dest="ignored", help=argparse.SUPPRESS)
    parser.add_argument("--accept-micro-batch", action="store_true", help=argparse.SUPPRESS)
    return answer(parser, _status, argv)


def _status(options: argparse.Namespace) -> int:
    place = Place(options.runs, options.run_dir, options.fresh)
    if options.where or options.decide:
        if not options.what:
            raise UsageError("--decide and --where need one run: give RECIPE [key=value ...]")
        recipe, *overrides = options.what
        if options.decide:
            return requeue.answer(recipe, overrides, place, options.decide, options.exit_status)
        print(requeue.located(recipe, overrides, place))
        return 0
    single, folders = _asked(options.what, place)

    def read() -> tuple[list[RunState], Queue]:
        queue = read_queue()
        paths = folders if single else runs_below(folders, SIGNS_OF_A_JOB)
        return [read_run(path, queue) for path in paths], queue

    if options.json:
        fields = [run.fields() for run in read()[0]]
        print(json.dumps(fields[0] if single else {"runs": fields}, indent=2))
    else:
        show(read, folders, everything=options.all, watch=options.watch)
    return 0


def _asked(what: Sequence[str], place: Place) -> tuple[bool, list[Path]]:
    """Whether it is about one run, by its recipe or its directory; that run, or the folders of many."""
    if not what and place.run_dir:
        return True, [Path(place.run_dir).absolute()]
    folders = [Path(name).absolute() for name in what or [place.runs]]
    missing = [folder for folder in folders if what and not folder.is_dir()]
    if missing and missing[0] == folders[0]:
        return True, [requeue.located(what[0], what[1:], place)]
    if missing:
        raise UsageError(f"{missing[0]} is no directory: give a run, or a folder of runs")
    return len(folders) == 1 and runs_below(folders, SIGNS_OF_A_JOB) == folders, folders
