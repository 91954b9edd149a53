"""The text that is sent to sbatch: a pure function of what was asked for and of slurm/train.sbatch."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from submit_options import Options, SubmitError

MARKER = "# --- body ---"
# What shellcheck says of text that looks like code, typographic quotes or a list: here it is meant literally.
LITERAL = "# shellcheck disable=SC1003,SC1110,SC1111,SC1112,SC2016,SC2054,SC2088"
CORES = 4  # for a process with a GPU: the pictures lie on it
VARIABLES = {"array": "ARRAY_INX", "mem": "MEM_PER_NODE", "time": "TIMELIMIT", "requeue": "NO_REQUEUE"}


@dataclass(frozen=True)
class Array:
    """Arguments of every member of a sweep, and the numbers of those to run, `limit` at the same time."""

    members: Sequence[Sequence[str]]
    numbers: Sequence[int]
    limit: int | None


def body_of(script: str) -> str:
    """What follows the marker line of slurm/train.sbatch, the marker included. Raises SubmitError without it."""
    _, marker, body = script.partition(f"\n{MARKER}\n")
    if not marker:
        raise SubmitError(f"slurm/train.sbatch has no line `{MARKER}`, below which the generated script begins")
    return f"{MARKER}\n{body}"


def directives(options: Options, name: str, array: Array | None) -> dict[str, str | None]:
    """Names and values of the `#SBATCH` lines, None for a name that stands alone."""
    values: dict[str, object] = {
        "job-name": options.job_name or name,
        "nodes": options.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": (options.gpus_per_node or options.num_gpus) if options.num_gpus else None,
        "cpus-per-task": CORES * options.processes if options.uses_gpus else None,
        "time": options.time,
        "array": None if array is None else _array(array),
        "requeue": "",
        "signal": f"B:USR1@{options.signal_before}",
        "open-mode": "append",
        "output": f"slurm/logs/{log_name(array is not None)}",
    }
    return {key: str(value) or None for key, value in values.items() if value is not None} | options.others


def log_name(is_array: bool) -> str:
    """Slurm's pattern of a log's name: one file a job, or a member."""
    return "%x-%A_%a.log" if is_array else "%x-%j.log"


def sbatch_text(
    header: dict[str, str | None],
    checkout: str,
    python: str | None,
    arguments: Sequence[str] | Array,
    body: str,
    environment: Sequence[str] = (),
) -> str:
    """The script; `arguments` are those of launch/node.sh, `python` one to name where .venv is not used.

    `environment` are lines for what must stand before python.
    Raises SubmitError for a word with a line break.
    """
    lines = ["#!/usr/bin/env bash"]
    lines += [f"#SBATCH --{key}" + ("" if value is None else f"={value}") for key, value in header.items()]
    lines += ["# Made by launch/submit.py; slurm/train.sbatch is the form to edit by hand.", ""]
    members = arguments.members if isinstance(arguments, Array) else [arguments]
    words = [checkout, *([python] if python else []), *itertools.chain.from_iterable(members)]
    broken = next((word for word in words if "\n" in word or "\r" in word), None)
    if broken is not None:  # Slurm refuses a script with \r, and a line of a quoted text could begin with `#SBATCH`
        raise SubmitError(
            f"{broken!r} has a line break: in a text in double quotes it is \\n, a file needs another name"
        )
    lines += [LITERAL] if environment or any(shlex.quote(word) != word for word in words) else []
    lines += [f"cd {shlex.quote(checkout)} || exit"]
    lines += [f"export CIFAR_LAB_PYTHON={shlex.quote(python)}"] if python else []
    lines += environment
    calls = [f"set -- {shlex.join(member)}" for member in members]
    if isinstance(arguments, Array):
        calls = [
            'case "${SLURM_ARRAY_TASK_ID:-none}" in',
            *(f"  {number}) {call} ;;" for number, call in enumerate(calls)),
            '  *) echo "there is no member ${SLURM_ARRAY_TASK_ID:-without --array} in this sweep" >&2; exit 2 ;;',
            "esac",
        ]
    return "\n".join([*lines, *calls, ""]) + body


def overruled(header: Iterable[str]) -> set[str]:
    """Environment variables of sbatch that would win over lines of the header."""
    return {"SBATCH_" + VARIABLES.get(key, key.replace("-", "_").upper()) for key in header}


def _array(array: Array) -> str:
    """Numbers as Slurm reads them: 0,1,5%4."""
    return ",".join(map(str, array.numbers)) + ("" if array.limit is None else f"%{array.limit}")
