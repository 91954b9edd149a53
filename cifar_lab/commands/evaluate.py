"""`cifar-lab evaluate RUN`: how good a trained model is on a split, each sample counted once; on any world size."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cifar_lab.errors import UserError
from cifar_lab.runtime import host
from cifar_lab.trained.model import SavedModel, open_saved

if TYPE_CHECKING:
    from cifar_lab.trained.measure import Measured

TTA = {"off": "false", "mirror": "true", "translate": "translate"}

EPILOG = """\
examples:
  cifar-lab evaluate runs/demo/0-1a2b3c4d
  cifar-lab evaluate runs/demo/0-1a2b3c4d --split val --json
  cifar-lab evaluate runs/demo/0-1a2b3c4d --tta
  cifar-lab evaluate downloads/model.safetensors --data cifar10 --data-root data
  torchrun --nproc-per-node 8 -m cifar_lab evaluate runs/eva02_large/0-5e6f7a8b
  accelerate launch -m cifar_lab evaluate runs/eva02_large/0-5e6f7a8b
A run is measured as it measured itself: its own data, batch, precision and test-time augmentation, unless told
otherwise, so that `test` gives the numbers of its summary.json. `val` is what the run held out of the training
pictures. A model.safetensors needs the model.json beside it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_intermixed_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        saved = open_saved(options.run, _overrides(options), data=options.data)
        measured = _measure(saved, options.split)
    except UserError as error:
        if _is_main():
            print(f"cifar-lab evaluate: {error}", file=sys.stderr)
        return error.exit_status
    if _is_main():
        from cifar_lab.trained.measured_text import render

        print(json.dumps(measured.as_json(), indent=2, allow_nan=False) if options.json else render(measured))
    return 0


def _measure(saved: SavedModel, split: str) -> Measured:
    with host.loading():
        from cifar_lab.runtime.start import start_world
        from cifar_lab.trained.measure import measure

    world = start_world()
    show = world.is_main and sys.stderr.isatty()

    def tick(batch: int, batches: int) -> None:
        if show:
            print(f"\rbatch {batch} of {batches}", end="\n" if batch == batches else "", file=sys.stderr, flush=True)

    try:
        return measure(saved, world, split, tick)
    finally:
        world.close()


def _overrides(options: argparse.Namespace) -> list[str]:
    """The options as overrides of the recipe, those that were written out last."""
    short = {
        "data.root": options.data_root and json.dumps(options.data_root),
        "eval.batch": options.batch,
        "eval.tta": options.tta and TTA[options.tta],
    }
    return [*(f"{key}={value}" for key, value in short.items() if value is not None), *options.overrides]


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cifar-lab evaluate",
        description="Accuracy, loss, classes, calibration and confusions of a trained model on a split.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run directory, or a model.safetensors with its model.json")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        help="such as data.root=DIR, where the pictures are",
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
    parser.add_argument("--data-root", metavar="DIR", help="where its files are")
    parser.add_argument("--json", action="store_true", help="for machines, with the confusion matrix")
    return parser


if __name__ == "__main__":
    from cifar_lab.commands import dispatch as cli

    sys.exit(cli.main(["evaluate", *sys.argv[1:]]))
