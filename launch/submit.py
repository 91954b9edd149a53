#!/usr/bin/env python3
"""`launch/submit.py RECIPE [options] [key=value ...]`: check a recipe, make its sbatch script and queue it.

Needs only the standard library; what it asks about the recipe is answered by the checkout's python.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import resources
import sweep
from environment import environment_lines
from resources import CHECKOUT, FILES, Member, Questions
from sbatch_text import Array, body_of, directives, log_name, overruled, sbatch_text
from submit_options import Options, SlurmError, SubmitError, parse

# What of Slurm's variables is not about the job that this may run inside of, and which a new one would inherit.
OF_THE_SITE = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"}


@dataclass(frozen=True)
class Job:
    """What is to be queued: the text for sbatch, its header, and the members that it runs, by their numbers."""

    text: str
    header: dict[str, str | None]
    members: dict[int, Member]
    num_members: int


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parse(sys.argv[1:] if argv is None else argv)
    python, named = resources.find_python(options)
    try:
        if options.sweep:
            all_overrides = sweep.members(options.sweep, options.overrides, python, CHECKOUT)
        else:
            all_overrides = [options.overrides]
        if options.member is not None:
            return _print_member(all_overrides, options.member)
        job = _prepare(options, all_overrides, python, named)
        if job is None:
            return 0
        if options.dry_run:
            sys.stdout.buffer.write(os.fsencode(job.text))
            return 0
        job_id = _queue(job)
    except SubmitError as error:
        print(f"submit.py: {error}", file=sys.stderr)
        return error.exit_status
    run_dirs = _remember(job, job_id, is_array=options.sweep is not None)
    _tell(job, job_id, run_dirs, is_array=options.sweep is not None)
    return 0


def _print_member(all_overrides: Sequence[Sequence[str]], number: int) -> int:
    if number >= len(all_overrides):
        raise SubmitError(f"there is no member {number}: the sweep has {len(all_overrides)}, numbered from 0")
    sys.stdout.buffer.write(b"".join(os.fsencode(word) + b"\0" for word in all_overrides[number]))
    return 0


def _prepare(options: Options, all_overrides: Sequence[Sequence[str]], python: str, named: str | None) -> Job | None:
    """Check everything and make the text; None where nothing is missing."""
    recipe = resources.from_checkout(options.recipe)
    runs = None if options.runs is None else resources.from_checkout(options.runs)
    body = body_of((FILES / "slurm" / "train.sbatch").read_text(encoding="utf-8"))
    if FILES != CHECKOUT:
        body = f"export CIFAR_LAB_FILES={shlex.quote(str(FILES))}\n{body}"
    questions = Questions(options, recipe, runs, python)
    if len(all_overrides) > 20:
        _note(f"checking {len(all_overrides)} members ...")
    members = questions.members(all_overrides)
    _refuse_twins(members)
    missing = {number: member for number, member in enumerate(members) if member.settled is None}
    for number, member in enumerate(members):
        if member.settled:
            _note(f"left out: {_label(number, member, options)}, {member.settled} ({member.run_dir})")
    if not missing:
        print("nothing is missing, so nothing was queued", file=sys.stderr if options.dry_run else sys.stdout)
        return None
    seen = [str(FILES), os.path.dirname(recipe), runs, *map(os.environ.get, ("CIFAR_LAB_DATA", "CIFAR_LAB_CACHE"))]
    seen += [member.described["recipe"]["data.root"]["value"] for member in members]
    lines = environment_lines(options, CHECKOUT, [folder for folder in seen if folder and os.path.isabs(folder)])
    questions.check_strategy(list(missing.values()))
    for note in questions.check_plan(list(missing.values())):
        _note(note)
    arguments = [_arguments(options, recipe, runs, member.overrides) for member in members]
    array = Array(arguments, list(missing), options.max_parallel) if options.sweep else None
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", members[0].described["recipe"]["name"]["value"], flags=re.ASCII)[:64]
    header = directives(options, name.lstrip(".+-") or "cifar_lab", array)
    text = sbatch_text(header, str(CHECKOUT), named, array or arguments[0], body, lines)
    return Job(text, header, missing, len(members))


def _refuse_twins(members: Sequence[Member]) -> None:
    """Two members that would share a run directory."""
    first: dict[Path, int] = {}
    for number, member in enumerate(members):
        other = first.setdefault(member.run_dir, number)
        if other != number:
            raise SubmitError(
                f"members {other} ({shlex.join(members[other].overrides)}) and {number} "
                f"({shlex.join(member.overrides)}) are the same experiment and would share {member.run_dir}: "
                "sweep keys that change the result, each value once"
            )


def _arguments(options: Options, recipe: str, runs: str | None, overrides: Sequence[str]) -> list[str]:
    """Those of launch/node.sh; the number of processes is named since it is what was checked."""
    words = [recipe, "--nproc", str(options.processes)]
    words += ["--with", options.launcher] if options.launcher else []
    words += ["--strategy", options.strategy] if options.strategy else []
    words += ["--runs", runs] if runs is not None else []
    words += ["--accept-micro-batch"] if options.accept_micro_batch else []
    return [*words, *overrides]


def _queue(job: Job) -> str:
    """Send the text to sbatch; returns the job's id. Raises SlurmError with what sbatch says."""
    # Slurm drops a job without a word when it cannot make its log.
    (CHECKOUT / "slurm" / "logs").mkdir(parents=True, exist_ok=True)
    dropped = overruled(job.header)
    if "SLURM_JOB_ID" in os.environ:
        dropped |= {name for name in os.environ if name.startswith(("SLURM_", "SRUN_"))} - OF_THE_SITE
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    try:
        answer = subprocess.run(
            ["sbatch", "--parsable"], input=os.fsencode(job.text), capture_output=True, cwd=CHECKOUT, env=environment
        )
    except FileNotFoundError:
        raise SlurmError(
            "there is no sbatch here: run this on a login node, or see the script with --dry-run"
        ) from None
    said = answer.stderr.decode(errors="replace").strip()
    job_id = answer.stdout.decode(errors="replace").strip().partition(";")[0]
    if answer.returncode or not job_id.isdecimal():  # an option may have asked for something else
        said = said or job_id or f"sbatch ended with status {answer.returncode}"
        if "gpus-per-node" in job.header and re.search("generic resource|configuration is not available", said):
            said += " (on a cluster without GPUs: --gpus 0)"
        raise SlurmError(f"Slurm did not take the job: {said}")
    if said:
        _note(said)
    return job_id


def _remember(job: Job, job_id: str, *, is_array: bool) -> list[str]:
    """Leave job.json in every run directory, by which `cifar-lab status` finds the job."""
    for number, member in job.members.items():
        content = {"job_id": f"{job_id}_{number}" if is_array else job_id, "submitted": round(time.time(), 3)}
        temporary = member.run_dir / f".job.json.{os.getpid()}"
        try:
            member.run_dir.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
            temporary.replace(member.run_dir / "job.json")
        except OSError as error:
            _note(f"{member.run_dir / 'job.json'} cannot be written ({error.strerror}): status will not know the job")
    return [str(member.run_dir) for member in job.members.values()]


def _tell(job: Job, job_id: str, run_dirs: Sequence[str], *, is_array: bool) -> None:
    """Where the job is, and how to watch and stop it."""
    pattern = log_name(is_array).replace("%x", job.header["job-name"] or "").replace("%a", "*")
    log = pattern.replace("%j", job_id).replace("%A", job_id)
    array = f", array of {len(job.members)} of {job.num_members} members" if is_array else ""
    watched = run_dirs[0] if len(run_dirs) == 1 else os.path.dirname(run_dirs[0])
    print(f"job {job_id} is queued{array}")
    print(f"  log            {CHECKOUT / 'slurm' / 'logs' / log}")
    for run_dir in run_dirs:
        print(f"  run directory  {run_dir}")
    print(f"  watch          cifar-lab status {shlex.quote(watched)} --watch")
    stop = shlex.quote(f"{run_dirs[0]}/STOP") if len(run_dirs) == 1 else "RUN_DIRECTORY/STOP"
    print(f"  save and stop  touch {stop}")
    print(f"  cancel         scancel {job_id}")


def _label(number: int, member: Member, options: Options) -> str:
    return f"member {number} ({shlex.join(member.overrides)})" if options.sweep else "the run"


def _note(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
