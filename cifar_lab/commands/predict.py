"""`cifar-lab predict RUN PICTURE ...`: what a trained model sees in any picture files."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.cli.printable import shown
from cifar_lab.errors import UserError
from cifar_lab.files import atomic
from cifar_lab.runtime import host
from cifar_lab.trained.model import SavedModel, open_saved

if TYPE_CHECKING:
    from cifar_lab.files.contact_sheet import Tile
    from cifar_lab.trained.guess import Guess

SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

EPILOG = """\
examples:
  cifar-lab predict runs/demo/0-1a2b3c4d cat.jpg holiday/
  cifar-lab predict runs/demo/0-1a2b3c4d holiday/ --sheet sheet.png
  cifar-lab predict downloads/model.safetensors cat.jpg --top 3 --json
Of folders, all pictures in them and below are taken. A picture is turned upright as its EXIF data say, its centre
square is taken, and that is resized as in training: to the size of the data set's pictures first (32 px for CIFAR-10),
then to what the model is fed. Of an animation the first frame counts. What is no picture is named, the others are
predicted, and the exit status is 1.
"""


class PredictError(UserError):
    """Nothing to predict, or no place for the sheet."""

    exit_status = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        if options.top < 1:
            raise PredictError(f"--top {options.top}: it must be at least 1")
        if options.sheet is not None:
            _check_place(options.sheet)
        saved = open_saved(options.run)
        return _predict(saved, options)
    except UserError as error:
        print(f"cifar-lab predict: {error}", file=sys.stderr)
        return error.exit_status


def _predict(saved: SavedModel, options: argparse.Namespace) -> int:
    with host.loading():
        from cifar_lab.data.pictures import find_pictures
        from cifar_lab.files.contact_sheet import COLUMNS, ROWS
        from cifar_lab.trained.guess import guess
        from cifar_lab.trained.load import load_prepare

        prepare = load_prepare(saved)
    answers: list[dict[str, Any]] = []
    problems: list[dict[str, str]] = []
    tiles: list[Tile] = []
    for found in guess(prepare, find_pictures(options.pictures), options.top):
        if found.problem:
            problems.append({"file": str(found.path), "problem": found.problem})
            print(f"cifar-lab predict: {shown(found.path)}: {found.problem}", file=sys.stderr, flush=True)
            continue
        answers.append({"file": str(found.path), "top": [{"label": n, "probability": p} for n, p in found.top]})
        if options.sheet is not None and len(tiles) < COLUMNS * ROWS:
            tiles.append(_tile(found))
        if not options.json:
            ranked = ", ".join(f"{name} {probability:.1%}" for name, probability in found.top)
            print(f"{shown(found.path)}: {ranked}", flush=True)
    if not answers and not problems:
        raise PredictError(f"there are no pictures in {', '.join(shown(path) for path in options.pictures)}")
    if options.json:
        answer = {"model": str(saved.path), "prepared": prepare.description, "pictures": answers, "problems": problems}
        print(json.dumps(atomic.finite(answer), indent=2, allow_nan=False))
    if options.sheet is not None and answers:
        _write_sheet(options.sheet, tiles, len(answers))
    return 1 if problems else 0


def _tile(found: Guess) -> Tile:
    from PIL import Image

    from cifar_lab.files.contact_sheet import Tile

    assert found.pixels is not None
    name, probability = found.top[0]
    return Tile(
        Image.fromarray(found.pixels), ((f"{name[:11]} {probability:.0%}", "black"), (shown(found.path.name), "#666"))
    )


def _write_sheet(path: Path, tiles: Sequence[Tile], num: int) -> None:
    from cifar_lab.files.contact_sheet import draw_sheet

    try:
        with atomic.replacing(path) as temporary:
            draw_sheet(temporary, tiles, empty="no pictures")
    except OSError as error:
        raise PredictError(f"cannot write {path}: {error.strerror or error}; name another place with --sheet") from None
    more = f"the first {len(tiles)} of {num} pictures" if num > len(tiles) else f"{num} pictures"
    print(f"{path}: {more}", file=sys.stderr)


def _check_place(sheet: Path) -> None:
    """Before any work: a sheet is written where nothing is. Raises PredictError."""
    if sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise PredictError(f"--sheet {sheet}: its name must end with one of {', '.join(SHEET_SUFFIXES)}")
    if os.path.lexists(sheet):
        raise PredictError(f"--sheet {sheet} exists already: remove it, or name another")
    if not os.path.isdir(sheet.absolute().parent):
        raise PredictError(f"--sheet {sheet}: there is no folder {sheet.absolute().parent}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cifar-lab predict",
        description="What a trained model sees in picture files: the likeliest classes with their probabilities.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run directory, or a model.safetensors with its model.json")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", type=Path, help="picture files, or folders of them")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to name (default: 5)")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also draw a contact sheet, such as sheet.png")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    from cifar_lab.commands import dispatch as cli

    sys.exit(cli.main(["predict", *sys.argv[1:]]))
