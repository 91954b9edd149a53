"""What commands share: how their arguments are read, and how a mistake is told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from cifar_lab.cli.missing import missing_package
from cifar_lab.errors import UserError


def make_parser(name: str, description: str, epilog: str, *, recipe: bool = False) -> argparse.ArgumentParser:
    """The parser of `cifar-lab name`; with `recipe` it takes one, and changes to it, first."""
    parser = argparse.ArgumentParser(
        prog=f"cifar-lab {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if recipe:
        parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, such as recipes/resnet18.yaml")
        parser.add_argument(
            "overrides", metavar="key=value", nargs="*", help="change the recipe, such as optim.lr=0.05"
        )
    return parser


def answer(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: Sequence[str] | None
) -> int:
    """The exit status of a command; what the user has to mend is told once for all processes of a launch."""
    options = parser.parse_intermixed_args(argv)
    try:
        return run(options)
    except UserError as error:
        if is_main():
            print(error, file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        message = missing_package(error)
        if is_main():
            print(f"{parser.prog}: {message}", file=sys.stderr)
        return 1


def is_main() -> bool:
    """Whether this process speaks for its launch."""
    return os.environ.get("RANK", "0") == "0"
