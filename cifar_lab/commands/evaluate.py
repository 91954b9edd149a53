"""`cifar-lab evaluate RUN`: how good a trained model is on a split, each sample counted once; on any world size."""

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_lab.cli.argument_types import check_new_file
from cifar_lab.cli.command import answer, is_main, make_parser
from cifar_lab.cli.printable import shown
from cifar_lab.errors import UsageError
from cifar_lab.files import atomic
from cifar_lab.recipe.plugins import SOURCES
from cifar_lab.runtime import host
from cifar_lab.runtime.launcher import check_launch
from cifar_lab.trained.model import SavedModel, open_saved

logger = logging.getLogger("cifar_lab")

TTA = {"off": "false", "mirror": "true", "translate": "translate"}

EPILOG = """\
examples:
  cifar-lab evaluate runs/demo/0-1a2b3c4d
  cifar-lab evaluate runs/demo/0-1a2b3c4d --split val --json
  cifar-lab evaluate model.safetensors --data cifar10 data.root=data
  cifar-lab evaluate runs/demo/0-1a2b3c4d --data CIFAR-10-C
  torchrun --nproc-per-node 8 -m cifar_lab evaluate runs/vit/0-5e6f7a8b
Data, batch, precision and test-time augmentation are those of the run, unless you change them. So `--split test` gives
the numbers of its summary.json. `val` are the training pictures that the run held out. A model.safetensors needs its
model.json in the same folder; its data are cifar10 unless you name others.
A run from somebody else can hold a model or a source in Python, which is run: read its *.py files first.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    about = "Measure a trained model on a split: error, accuracy, loss, calibration, confusion matrix."
    parser = make_parser("evaluate", about, EPILOG)
    parser.add_argument("run", metavar="RUN", help="a run, a folder with one, or model.safetensors with its model.json")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the data, such as data.root=DIR")
    parser.add_argument("--split", choices=("test", "val", "train"), help="default: test")
    parser.add_argument("--tta", choices=tuple(TTA), nargs="?", const="mirror", help="augment it (no value: mirror)")
    parser.add_argument("--batch", type=int, metavar="N", help="samples in one forward pass (default: that of the run)")
    parser.add_argument("--data", metavar="SET", help="other pictures: a source, FILE.npy, folder, table or hub id")
    parser.add_argument("--mistakes", type=Path, metavar="FILE", help="also write all mistakes, such as mistakes.csv")
    parser.add_argument("--json", action="store_true", help="print JSON, with the confusion matrix")
    return answer(parser, _evaluate, argv)


def _evaluate(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("cifar_lab").setLevel(logging.INFO if is_main() else logging.ERROR)
    if options.mistakes is not None:
        check_new_file("--mistakes", options.mistakes, (".csv",))
    short = {"eval.batch": options.batch, "eval.tta": options.tta and TTA[options.tta]}
    overrides = [f"{key}={value}" for key, value in short.items() if value is not None] + options.overrides
    place = Path(options.data or "")
    files = [place] if place.suffix == ".npy" else sorted(place.glob("*.npy")) if options.data else []
    files = [path for path in files if path == place or not path.stem.endswith("labels")]
    closed = [text for text in overrides if text.startswith("data.")] + ["--split"] * bool(options.split)
    closed += ["--mistakes"] * (bool(options.mistakes) and len(files) > 1)
    if files and closed:
        raise UsageError(f"{closed[0]} does not go with --data {options.data} ({len(files)} npy files): leave it out")
    source, where = (None, []) if files else _source(options.data)
    saved = open_saved(options.run, [*where, *overrides], data=source)
    check_launch(os.environ, saved.recipe)
    with host.loading():
        from cifar_lab.trained.measure import measure
        from cifar_lab.trained.scores import as_table, as_text
    other = options.data if files or where else None
    measured = measure(saved, options.split, options.mistakes, other, files)
    if not is_main():
        return 0
    if options.json:
        told = [{key: value for key, value in one.items() if key != "wrong"} for one in measured]
        print(json.dumps(atomic.finite(told if len(told) > 1 else told[0]), indent=2, allow_nan=False))
    else:
        print(as_text(measured[0]) if len(measured) == 1 else shown(saved.path))
        print("\n" + as_table(measured) if other else "", end="\n" * bool(other))
    if other:
        _keep(saved, measured)
    return 0


def _source(data: str | None) -> tuple[str | None, list[str]]:
    """The source of what --data names, and where that lies if it is no source. Raises UsageError."""
    place = Path(data or "")
    if data is None or data in SOURCES.names() or place.suffix == ".py" or not ("/" in data or place.exists()):
        return data, []
    if not place.exists():
        if data.count("/") != 1 or data.startswith(("/", ".", "~")) or data.endswith("/"):
            raise UsageError(f"--data {data} does not exist: name a file, a folder, or a hub set as OWNER/NAME")
        return "hub", [f"data.args.id={json.dumps(data)}"]
    root = f"data.root={json.dumps(str(place.resolve()))}"
    from cifar_lab.data.sources.hub import is_saved

    if place.is_dir() and (is_saved(place) or any(place.rglob("*.parquet"))):
        return "hub", [root, f"data.args.id={json.dumps(data)}"]
    return "folder" if place.is_dir() else "table", [root]


def _keep(saved: SavedModel, measured: Sequence[Mapping[str, Any]]) -> None:
    """Write what other test sets gave into evaluations/ of the run, in place of what the same sets gave before."""
    if saved.run is None or saved.recipe.eval.tta != saved.run.recipe().eval.tta:
        logger.info("not kept for the report: not measured as the test error of a run is (with its eval.tta)")
        return
    folder = saved.run.path / "evaluations"
    try:
        folder.mkdir(exist_ok=True)
        for one in measured:
            which = hashlib.sha256(f"{one['data']} {one['split']}".encode()).hexdigest()[:8]
            name = "".join(c if c.isalnum() else "_" for c in one["set"][-80:])
            atomic.write_text(folder / f"{name}-{which}.json", json.dumps(atomic.finite(one), allow_nan=False) + "\n")
        logger.info("kept for `cifar-lab report` in %s", folder)
    except OSError as error:
        logger.warning("not kept for the report: %s cannot be written (%s)", folder, error.strerror)
