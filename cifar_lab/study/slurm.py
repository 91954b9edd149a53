"""A study on a Slurm cluster: each recipe's seeds as one array, queued by launch/submit.py."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.study.members import Member
from cifar_lab.study.sizing import Study, StudyError


def arrays(study: Study, members: Sequence[Member], runs: Path, options: str) -> list[list[str]]:
    """A call of launch/submit.py for each recipe; `options` come after those of the study's file, and win."""
    seeds: dict[str, list[str]] = {}
    first: dict[str, Member] = {}
    for member in members:
        seeds.setdefault(member.name, []).append(str(member.seed))
        first.setdefault(member.name, member)
    calls = []
    for name, member in first.items():
        own, given = _words(study.runs[name].slurm), _words(options)
        call = ["launch/submit.py", str(member.recipe_path), *member.overrides, "--runs", str(runs), *own, *given]
        calls.append([*call, "--sweep", f"seed={','.join(seeds[name])}"])
    return calls


def queue(calls: Sequence[Sequence[str]], *, dry_run: bool) -> int:
    """Make the calls, or only print them; returns the first exit status that is not 0, after which none is made."""
    for call in calls:
        print(("" if dry_run else "+ ") + shlex.join(call), flush=True)
        if not dry_run:
            status = subprocess.run([sys.executable, *call], check=False).returncode
            if status:
                return status
    return 0


def _words(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:
        raise StudyError(f"--slurm {options!r}: a quote is missing ({error})") from None
