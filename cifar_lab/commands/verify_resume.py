"""`cifar-lab verify-resume RECIPE [key=value ...]`: proof that kill -9 and resuming change nothing.

Trains the recipe undisturbed, then again with kill -9 at random moments, and compares: samples, metrics, tensors.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.cli.command import answer, make_parser
from cifar_lab.recipe import load_recipe
from cifar_lab.verify.kills import Trial, empty_folder, verify

EPILOG = """\
example:
  cifar-lab verify-resume recipes/demo.yaml data.name=shapes train.epochs=20
Exit status: 0 the results are equal, 1 they differ.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 if nothing changed, 1 if something did."""
    about = "Prove that kill -9 and resuming do not change the result."
    parser = make_parser("verify-resume", about, EPILOG, recipe=True)
    parser.add_argument("--kills", type=at_least_one, default=3, metavar="N", help="number of kills (default: 3)")
    parser.add_argument("--processes", type=at_least_one, default=1, metavar="N", help="of each run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random moments (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the runs there (default: a temporary folder)")
    return answer(parser, _prove, argv)


def _prove(options: argparse.Namespace) -> int:
    load_recipe(options.recipe, options.overrides)
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as temporary:
        folder = empty_folder(options.out or Path(temporary))
        trial = Trial(options.recipe, tuple(options.overrides), options.processes, folder)
        verdict = verify(trial, options.kills, random.Random(options.seed))
    for line in verdict.lines():
        print(line)
    return 0 if verdict.holds else 1
