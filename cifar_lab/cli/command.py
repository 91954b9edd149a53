"""What commands share: how their arguments are read, and how a mistake is told."""

import argparse
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Sequence

from cifar_lab.cli.missing import missing_package
from cifar_lab.errors import UserError

# How long the launch's first process has to speak before another one does.
FIRST_SPEAKS_SECONDS = 15.0


class _Help(argparse.HelpFormatter):
    """Paragraphs, which end with a line that ends with . or :, are folded to the terminal; indented lines are not."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        text = re.sub(r"^( .*\n)(?=\S)", r"\1\n", text, flags=re.MULTILINE)
        lines = re.sub(r"^(\S.*[^.:\n])\n(?=\S)", r"\1 ", text, flags=re.MULTILINE).splitlines()
        return "\n".join(
            line if line.startswith(" ") else super(_Help, self)._fill_text(line, width, indent) for line in lines
        )


def make_parser(name: str, description: str, epilog: str, *, recipe: bool = False) -> argparse.ArgumentParser:
    """The parser of `cifar-lab name`; with `recipe` it takes one, and changes to it, first."""
    parser = argparse.ArgumentParser(
        prog=f"cifar-lab {name}", description=description, epilog=epilog, formatter_class=_Help, allow_abbrev=False
    )
    if recipe:
        parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of one, such as resnet18")
        parser.add_argument("overrides", metavar="key=value", nargs="*", help="change it, such as optim.lr=0.05")
    return parser


def answer(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: Sequence[str] | None
) -> int:
    """The exit status of a command; what the user has to mend is told once for all processes of a launch."""
    options = parse(parser, sys.argv[1:] if argv is None else argv)
    try:
        return run(options)
    except UserError as error:
        _tell(str(error))
        return error.exit_status
    except ModuleNotFoundError as error:
        _tell(f"{parser.prog}: {missing_package(error)}")
        return 1


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The options, in any order with the rest; one whose value may be left out takes the word behind it if it can."""
    given = []
    optional = {name: action for action in parser._actions if action.nargs == "?" for name in action.option_strings}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        action = optional.get(word)
        takes = action and following in (action.choices or ())
        given.append(word if action is None or takes else f"{word}={action.const}")
    return parser.parse_intermixed_args(given)


def _tell(message: str) -> None:
    """Print `message` once for the launch, by its first process; by another one only if the first does not end."""
    if not is_main():
        # A launcher ends all its processes when one ends: if that were this one, the first might not have spoken yet.
        # Once it has, this one is ended here. Of those to whom alone this happened, one speaks for its node.
        time.sleep(FIRST_SPEAKS_SECONDS + int(os.environ.get("LOCAL_RANK", "0")))
    print(message, file=sys.stderr, flush=True)


def is_main() -> bool:
    """Whether this process speaks for its launch."""
    return os.environ.get("RANK", "0") == "0"
