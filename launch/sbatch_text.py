"""The text that is sent to sbatch: a pure function of what was asked for and of slurm/train.sbatch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from submit_options import Options, SubmitError

MARKER = "# --- body ---"
# What shellcheck says of quoted text that looks like code or like typographic quotes: here it is meant literally.
LITERAL = "# shellcheck disable=SC1003,SC1110,SC1111,SC1112,SC2016,SC2088"
VARIABLES = {"array": "ARRAY_INX", "mem": "MEM_PER_NODE", "time": "TIMELIMIT", "requeue": "NO_REQUEUE"}


@dataclass(frozen=True)
class Array:
    """Arguments of every member of a sweep, and the numbers of those to run, `limit` at the same time."""

    members: Sequence[Sequence[str]]
    numbers: Sequence[int]
    limit: int | None


def quote(text: str) -> str:
    """A word for bash: as it is, in '...', or in $'...' where it holds a quote or what a line cannot show.

    Slurm refuses a script with carriage returns, and a quoted newline could begin a line with `#SBATCH`.
    """
    if text.isprintable() and "'" not in text:
        return shlex.quote(text)
    parts = []
    for character in text:
        if character in "\\'":
            parts.append("\\" + character)
        elif character.isprintable():
            parts.append(character)
        else:
            # Octal, since three digits are the most that bash reads.
            named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
            parts.append(named or "".join(f"\\{byte:03o}" for byte in os.fsencode(character)))
    return "$'" + "".join(parts) + "'"


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
        "gpus-per-node": options.gpus_per_node,
        "time": options.time,
        "array": None if array is None else _array(array),
        "dependency": options.after and "afterany:" + options.after.replace(",", ":"),
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
    header: dict[str, str | None], checkout: str, python: str | None, arguments: Sequence[str] | Array, body: str
) -> str:
    """The script; `arguments` are those of launch/node.sh, `python` one to name where .venv is not used."""
    lines = ["#!/usr/bin/env bash"]
    lines += [f"#SBATCH --{key}" + ("" if value is None else f"={value}") for key, value in header.items()]
    lines += ["# Made by launch/submit.py; slurm/train.sbatch is the form to edit by hand.", ""]
    words = [checkout, *([python] if python else []), *_all(arguments)]
    if any(quote(word) != word for word in words):
        lines.append(LITERAL)
    lines += [f"cd {quote(checkout)} || exit"]
    lines += [f"export CIFAR_LAB_PYTHON={quote(python)}"] if python else []
    lines += _arguments(arguments)
    return "\n".join([*lines, ""]) + body


def overruled(header: Iterable[str]) -> set[str]:
    """Environment variables of sbatch that would win over lines of the header."""
    return {"SBATCH_" + VARIABLES.get(key, key.replace("-", "_").upper()) for key in header}


def _all(arguments: Sequence[str] | Array) -> list[str]:
    if isinstance(arguments, Array):
        return [word for member in arguments.members for word in member]
    return list(arguments)


def _arguments(arguments: Sequence[str] | Array) -> list[str]:
    if not isinstance(arguments, Array):
        return [_set(arguments)]
    return [
        'case "${SLURM_ARRAY_TASK_ID:-none}" in',
        *(f"  {number}) {_set(words)} ;;" for number, words in enumerate(arguments.members)),
        '  *) echo "there is no member ${SLURM_ARRAY_TASK_ID:-without --array} in this sweep" >&2; exit 2 ;;',
        "esac",
    ]


def _set(words: Sequence[str]) -> str:
    return " ".join(["set --", *map(quote, words)])


def _array(array: Array) -> str:
    """Numbers as Slurm writes them: 0-2,5%4."""
    runs: list[list[int]] = []
    for number in sorted(array.numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return text if array.limit is None else f"{text}%{array.limit}"
