"""The forms of values in `#SBATCH` lines, which cannot be quoted safely: what has another form is refused."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """A pattern, and how to say it."""

    pattern: str
    example: str

    def __call__(self, text: str) -> str:
        """The text itself; raises ArgumentTypeError for another form."""
        if not re.fullmatch(self.pattern, text, re.ASCII):
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form {self.example}")
        return text


_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}"
NAME = Form(_NAME, "of a name: letters, digits and _ . + -")
NAMES = Form(rf"{_NAME}(,{_NAME})*", "of names: letters, digits and _ . + -, separated by commas")
JOB_NAME = Form(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}", "of a name: at most 64 letters, digits and _ . + -")
TIME = Form(r"\d{1,7}(:\d{1,2}){0,2}|\d{1,4}-\d{1,2}(:\d{1,2}){0,2}", "90 (minutes), 1:30:00 or 2-12:00:00")
MEMORY = Form(r"[1-9]\d{0,8}[KMGT]?|0", "64G (0: all of a node)")
GPUS = Form(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63}:)?[1-9]\d{0,3}", "4 or a100:4")
CONSTRAINT = Form(
    r"[A-Za-z0-9(\[][A-Za-z0-9_.,:&|*()\[\]+-]{0,255}", "a100&ib, with letters, digits and _ . & | * ( ) [ ]"
)
JOBS = Form(r"\d{1,10}(_\d{1,7})?(,\d{1,10}(_\d{1,7})?)*", "1234 or 1234,1235_2")
SBATCH_OPTION = Form(
    r"(--)?[a-z][a-z-]{1,40}(=[A-Za-z0-9_.,:/@%+=*&|()\[\]-]{1,255})?", "exclude=node7 or exclusive, without spaces"
)
# They belong to the script itself, or would send it elsewhere than to the queue.
OWN = re.compile(
    r"account|array|chdir|constraint|cpus-per-task|dependency|error|export-file|gpus-per-node|help|input|job-name|mem|"
    r"nodes|ntasks(-per-node)?|open-mode|output|parsable|partition|qos|(no-)?requeue|signal|test-only|time|usage|"
    r"version|wait|wrap"
)
GPU_OPTION = re.compile(r"gres|gpus(-per-.*)?")


def count(text: str) -> int:
    """A number from 1. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def number(text: str) -> int:
    """A number from 0. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return int(text)
