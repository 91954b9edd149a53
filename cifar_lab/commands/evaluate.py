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
  cifar-lab evaluate model.safetensors --data cifar10 data.root=data
  torchrun --nproc-per-node 8 -m cifar_lab evaluate runs/vit/0-5e6f7a8b
Data, batch, precision and test-time augmentation are those of the run, unless you change them. So `--split test` gives
the numbers of its summary.json. `val` are the training pictures that the run held out. A model.safetensors needs its
model.json in the same folder.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    about = "Measure a trained model on a split: error, accuracy, loss, calibration, confusion matrix."
    parser = make_parser("evaluate", about, EPILOG)
    parser.add_argument("run", metavar="RUN", help="a run, a folder with one, or model.safetensors with its model.json")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the data, such as data.root=DIR")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="default: test")
    parser.add_argument(
        "--tta", choices=tuple(TTA), nargs="?", const="mirror", help="test-time augmentation (no value: mirror)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="samples in one forward pass (default: that of the run)")
    parser.add_argument("--data", metavar="NAME", help="data source (default: that of the run, else cifar10)")
    parser.add_argument("--mistakes", type=Path, metavar="FILE", help="also write all mistakes, such as mistakes.csv")
    parser.add_argument("--json", action="store_true", help="print JSON, with the confusion matrix")
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
