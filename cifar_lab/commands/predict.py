"""`cifar-lab predict RUN PICTURE ...`: what a trained model sees in any picture files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.cli.argument_types import at_least_one, check_new_file
from cifar_lab.cli.command import answer, make_parser
from cifar_lab.cli.printable import shown
from cifar_lab.cli.table import table
from cifar_lab.errors import UsageError
from cifar_lab.files import atomic
from cifar_lab.runtime import host
from cifar_lab.trained.model import open_saved

if TYPE_CHECKING:
    from cifar_lab.data.pictures import PictureFile
    from cifar_lab.files.contact_sheet import Tile

SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

EPILOG = """\
examples:
  cifar-lab predict runs/demo/0-1a2b3c4d cat.jpg holiday/
  cifar-lab predict runs/demo/0-1a2b3c4d holiday/ --sheet sheet.png
  cifar-lab predict model.safetensors cat.jpg --top 3 --json
A folder stands for all pictures in it and in its subfolders. Each picture is turned upright (EXIF), made a square as in
training (its centre, or by data.args.fit) and resized as there: first to the size of the data set's pictures (32 px for
CIFAR-10), then to the input size of the model. An animation counts as its first frame. A file that is not a picture is
named, the others are classified, and the exit status is 1.
A run from somebody else can hold a model in Python, which is run: read its *.py files first, as you would a pickle.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("predict", "Classify picture files with a trained model.", EPILOG)
    parser.add_argument("run", metavar="RUN", help="a run, a folder with one, or model.safetensors with its model.json")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", type=Path, help="picture files or folders")
    parser.add_argument("--top", type=at_least_one, default=5, metavar="N", help="classes to print (default: 5)")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also draw a contact sheet, such as sheet.png")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return answer(parser, _predict, argv)


def _predict(options: argparse.Namespace) -> int:
    if options.sheet is not None:
        check_new_file("--sheet", options.sheet, SHEET_SUFFIXES)
    saved = open_saved(options.run)
    with host.loading():
        from cifar_lab.data.pictures import find_pictures
        from cifar_lab.files.contact_sheet import COLUMNS, ROWS
        from cifar_lab.trained.network import load_network

        network = load_network(saved)
    answers: list[dict[str, Any]] = []
    problems: list[dict[str, str]] = []
    tiles: list[Tile] = []
    for file, top in network.guess(find_pictures(options.pictures), options.top):
        if file.problem:
            problems.append({"file": str(file.path), "problem": file.problem})
            print(f"cifar-lab predict: {shown(file.path)}: {file.problem}", file=sys.stderr, flush=True)
            continue
        answers.append({"file": str(file.path), "top": [{"label": n, "probability": p} for n, p in top]})
        if options.sheet is not None and len(tiles) < COLUMNS * ROWS:
            tiles.append(_tile(file, *top[0]))
        if not options.json:
            ranked = ", ".join(f"{name} {probability:.1%}" for name, probability in top)
            print(table([[f"{shown(file.path)}:", ranked]], gap=1), flush=True)
    if not answers and not problems:
        raise UsageError(f"there are no pictures in {', '.join(shown(path) for path in options.pictures)}")
    if options.json:
        prepared = {"fit": network.fit, "source_size": network.source_size, **vars(network.preparation)}
        answer = {"model": str(saved.path), "prepared": prepared, "pictures": answers, "problems": problems}
        print(json.dumps(atomic.finite(answer), indent=2, allow_nan=False))
    if tiles:
        _write_sheet(options.sheet, tiles, len(answers))
    return 1 if problems else 0


def _tile(file: PictureFile, name: str, probability: float) -> Tile:
    from PIL import Image

    from cifar_lab.files.contact_sheet import Tile

    assert file.pixels is not None
    captions = ((f"{probability:.0%} {name}", "black"), (shown(file.path.name), "#666"))
    return Tile(Image.fromarray(file.pixels), captions)


def _write_sheet(path: Path, tiles: Sequence[Tile], num: int) -> None:
    from cifar_lab.files.contact_sheet import draw_sheet

    with atomic.replacing(path) as temporary:
        draw_sheet(temporary, tiles)
    more = f"the first {len(tiles)} of {num} pictures" if num > len(tiles) else f"{num} pictures"
    print(f"{path}: {more}", file=sys.stderr)
