"""`cifar-lab evaluate RUN`: how good a trained model is on a split, each sample counted once; on any world size."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.argument_types import check_new_file
from cifar_lab.cli.command import answer, is_main, make_parser
from cifar_lab.files import atomic
from cifar_lab.runtime import host
from cifar_lab.runtime.launcher import check_launch
from cifar_lab.trained.model import open_saved

TTA = {"off": "false", "mirror": "true", "translate": "translate"}

EPILOG = """\
examples:
  cifar-lab evaluate runs/demo/0-1a2b3c4d
  cifar-lab evaluate runs/demo/0-1a2b3c4d --split val --json
  cifar-lab evaluate runs/demo/0-1a2b3c4d --tta
  cifar-lab evaluate downloads/model.safetensors --data cifar10 data.root=data
  torchrun --nproc-per-node 8 -m cifar_lab evaluate runs/eva02_large/0-5e6f7a8b
  accelerate launch -m cifar_lab evaluate runs/eva02_large/0-5e6f7a8b
A run is measured as it measured itself: its own data, batch, precision and test-time augmentation, unless told
otherwise, so that `test` gives the numbers of its summary.json. `val` is what the run held out of the training
pictures. A model.safetensors needs the model.json beside it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    about = "Error, accuracy, loss, classes, calibration and confusions of a trained model on a split."
    parser = make_parser("evaluate", about, EPILOG)
    parser.add_argument("run", metavar="RUN", help="a run, a folder with one, or model.safetensors with its model.json")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="such as data.root=DIR, where the pictures are"
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="default: test")
    parser.add_argument(
        "--tta",
        choices=tuple(TTA),
        nargs="?",
        const="mirror",
        help="test-time augmentation: the mirror image too (no value), or moved ones (default: as the run does)",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="samples of one forward pass (default: as the run does)")
    parser.add_argument("--data", metavar="NAME", help="another source (default: the run's, else cifar10)")
    parser.add_argument(
        "--mistakes", type=Path, metavar="FILE", help="also write a list of what it gets wrong, such as mistakes.csv"
    )
    parser.add_argument("--json", action="store_true", help="for machines, with the confusion matrix")
    return answer(parser, _evaluate, argv)


def _evaluate(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("cifar_lab").setLevel(logging.INFO if is_main() else logging.ERROR)
    if options.mistakes is not None:
        check_new_file("--mistakes", options.mistakes, (".csv",))
    short = {"eval.batch": options.batch, "eval.tta": options.tta and TTA[options.tta]}
    overrides = [f"{key}={value}" for key, value in short.items() if value is not None]
    saved = open_saved(options.run, [*overrides, *options.overrides], data=options.data)
    check_launch(os.environ, saved.recipe)
    with host.loading():
        from cifar_lab.trained.measure import measure
        from cifar_lab.trained.scores import as_text
    measured = measure(saved, options.split, options.mistakes)
    if is_main():
        print(json.dumps(atomic.finite(measured), indent=2, allow_nan=False) if options.json else as_text(measured))
    return 0
