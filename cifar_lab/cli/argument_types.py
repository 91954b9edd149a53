"""Numbers and places that commands take as arguments; what is wrong with one is said with what it should be."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.errors import UsageError


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def check_new_file(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Before any work: a file is written where nothing is. Raises UsageError."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path}: its name must end with {' or '.join(suffixes)}")
    if os.path.lexists(path):
        raise UsageError(f"{option} {path} exists already: remove it, or name another")
    if not os.path.isdir(path.absolute().parent):
        raise UsageError(f"{option} {path}: there is no folder {path.absolute().parent}")
