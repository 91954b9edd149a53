"""`cifar-lab export RUN --format timm|onnx`: a trained model as a folder that other programs load."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cifar_lab.cli.command import answer, make_parser
from cifar_lab.cli.printable import shown
from cifar_lab.errors import UsageError, UserError
from cifar_lab.files import atomic
from cifar_lab.runtime import host
from cifar_lab.trained.model import open_saved

EPILOG = """\
examples:
  cifar-lab export runs/vit_tiny/0-1a2b3c4d --format timm
  cifar-lab export runs/demo/0-5e6f7a8b --format onnx --out demo-onnx
timm: model.safetensors, config.json, model card; only for models of the family timm_zoo.
onnx: model.onnx (any batch size, normalisation inside), model card; for every model, also one of a file of your own.
Before the folder appears, the export is loaded and compared with the original. To upload it: `hf auth login`, then
`hf upload --private OWNER/NAME FOLDER`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("export", "Save a trained model as a folder that other programs load.", EPILOG)
    parser.add_argument("run", metavar="RUN", help="a run, a folder with one, or model.safetensors with its model.json")
    parser.add_argument("--format", choices=("timm", "onnx"), required=True, help="see below")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new folder (default: RUN/export/FORMAT)")
    return answer(parser, _export, argv)


def _export(options: argparse.Namespace) -> int:
    saved = open_saved(options.run)
    folder = options.out or saved.weights.absolute().parent / "export" / options.format
    with _appearing(folder.absolute()) as temporary, host.loading():
        from cifar_lab.trained.export import to_onnx, to_timm

        checked = {"timm": to_timm, "onnx": to_onnx}[options.format](saved, temporary)
    print(f"{shown(folder)}: {checked}", flush=True)
    return 0


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block succeeds, and is gone else."""
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists already: remove it, or name another place with --out")
    place = next(parent for parent in folder.parents if parent.exists())
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:  # what is half-written shall go, as after Ctrl-C
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with TemporaryDirectory(prefix=atomic.TEMPORARY_PREFIX, dir=place) as private:
            made = Path(private, "export")  # with the usual permissions
            made.mkdir()
            yield made
            folder.parent.mkdir(parents=True, exist_ok=True)
            made.rename(folder)
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"cannot write {where}: {error.strerror or error}; name a place with --out") from None
    finally:
        signal.signal(signal.SIGTERM, before)
