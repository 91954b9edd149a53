"""`scripts/study`: trains the whole study at one scale, shows where it is, and ends with the report."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.cli.command import answer, make_parser
from cifar_lab.cli.printable import duration, shown
from cifar_lab.commands import report
from cifar_lab.errors import UsageError
from cifar_lab.runtime.signals import stop_flag
from cifar_lab.study.collect import state_of
from cifar_lab.study.loop import train_all
from cifar_lab.study.members import Member, arrays, members
from cifar_lab.study.sizing import Study, read_study

EPILOG = """\
examples:
  scripts/study --scale cpu --dry-run
  scripts/study --scale cpu
  scripts/study --scale cpu --only residual --seeds 0
  scripts/study --scale laptop --keep results/laptop_study
  scripts/study --scale full --slurm="--partition=gpu" --dry-run
The same command continues: completed runs are skipped, stopped runs go on. Paths are relative to the checkout.
Exit status: 0 all runs completed, 1 a run failed (the others were trained), 2 wrong call, 75 stopped.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("study", "Train all runs of a study, one after the other, then write the report.", EPILOG)
    parser.prog = "scripts/study"
    add = parser.add_argument
    add("overrides", metavar="key=value", nargs="*", help="change every run, such as data.root=DIR")
    add("--scale", metavar="SCALE", required=True, help="cpu, laptop, full, or a FILE.yaml of your own")
    add("--only", metavar="NAME,...", type=_list, action="extend", default=[], help="only these recipes or groups")
    add("--seeds", metavar="0,1,2", type=lambda text: [*map(int, text.split(","))], help="default: the study's")
    add("--runs", metavar="DIR", help="where run directories are made (default: runs/study_SCALE)")
    add(
        "--weights",
        metavar="DIR",
        default=os.environ.get("CIFAR_LAB_WEIGHTS", "../shared/weights"),
        help="folder of published weights (default: $CIFAR_LAB_WEIGHTS, else ../shared/weights)",
    )
    add("--nproc", metavar="N", type=at_least_one, default=1, help="processes for each run, one per GPU (default: 1)")
    what = parser.add_mutually_exclusive_group()
    keeping = "copy completed runs without weights to DIR; report there; skip them later"
    what.add_argument("--keep", metavar="DIR", type=Path, help=keeping)
    queueing = "do not train here: queue each recipe by launch/submit.py with these options"
    what.add_argument("--slurm", metavar="OPTIONS", type=shlex.split, help=queueing)
    add("--dry-run", action="store_true", help="only list the runs (with --slurm: the commands)")
    return answer(parser, _run, argv)


def _run(options: argparse.Namespace) -> int:
    study = read_study(options.scale)
    runs = Path(options.runs or f"runs/study_{Path(options.scale).stem}")
    names = _trainable(study, options)
    found = members(study, names, runs, weights=options.weights, seeds=options.seeds, extra=options.overrides)
    if options.slurm is not None:
        return _queue(arrays(study, found, runs, options.slurm), dry_run=options.dry_run)
    if options.keep is not None and options.keep.absolute() == runs.absolute():
        raise UsageError(f"--keep {shown(options.keep)} is where the runs are made: name another folder")
    if options.dry_run:
        print(f"{study.about}\n{_listed(found, runs, options.nproc, options.keep)}")
        return 0
    with stop_flag() as flag:
        status = train_all(found, runs, options.nproc, flag, options.keep)
    if flag.reason is not None:
        return status
    # On all that lies there, that of other calls too, and with the reasons of what failed.
    place = options.keep or runs
    return report.main([str(place), "--out", str(place / "report")]) or status


def _trainable(study: Study, options: argparse.Namespace) -> list[str]:
    """The entries of a call. Those whose published weights are not there are left out unless they are asked for."""
    names = study.chosen(options.only)
    lacking = {} if options.only else {name: study.lacks(name, options.weights) for name in names}
    for name, file in lacking.items():
        if file is not None:
            print(f"{name} is left out: there is no {shown(file)} (--weights DIR)", file=sys.stderr)
    return [name for name in names if lacking.get(name) is None]


def _queue(calls: Sequence[Sequence[str]], *, dry_run: bool) -> int:
    """Make the calls, or only print them; returns the first exit status that is not 0, after which none is made."""
    for call in calls:
        print(shlex.join(call), flush=True)
        if not dry_run and (status := subprocess.run([sys.executable, *call], check=False).returncode):
            return status
    return 0


def _listed(found: Sequence[Member], runs: Path, nproc: int, kept: Path | None) -> str:
    """Every run with its state and expected minutes, each recipe's command once; then the sum."""
    lines, rest, unknown = [], 0.0, 0
    for number, member in enumerate(found, start=1):
        if number == 1 or found[number - 2].name != member.name:
            lines.append(shlex.join(["python", *member.command(runs, nproc)[1:]]))
        state = state_of(member, kept).effective_state
        minutes = f"{member.minutes:.1f} min" if member.minutes else "not measured"
        lines.append(f"{number:5d}  {member.label:24}  {state:11}  {minutes:12}  {shown(member.path.name)}")
        if state != "completed":
            rest += member.minutes or 0.0
            unknown += member.minutes is None
    told = f"about {duration(60 * rest)} left" if not unknown else f"how long {unknown} of them take is not known"
    return "\n".join([*lines, f"{len(found)} runs in {shown(runs)}, {told}"])


def _list(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    raise SystemExit(main())
