#!/usr/bin/env python
"""Execute docs/cifar_lab.ipynb with this Python, as in a new folder of a notebook service, and keep its outputs.

    python scripts/notebook.py [--out FILE] [--folder DIR] [--weights FILE] [NAME=VALUE ...]

NAME=VALUE sets a parameter of the notebook (VALUE as Python writes it) in a cell of its own, as papermill does; without
any, and without --out, the notebook itself gets its new outputs. Needs `pip install -e '.[notebook]'`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "cifar_lab.ipynb"
# pip looks, and says what does not fit, but changes nothing: the project is here already.
PIP = {"PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """`notebook` with its outputs, made in `folder`. Raises CellExecutionError at the first cell that fails."""
    (folder / "checkout").symlink_to(ROOT)
    os.environ |= PIP
    os.environ["CIFAR_LAB_CACHE"] = str(folder / "cache")
    client = nbclient.NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return notebook


def with_parameters(notebook: nbformat.NotebookNode, parameters: list[str]) -> nbformat.NotebookNode:
    """`notebook` with a cell of assignments after the one that is tagged `parameters`."""
    (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    cell = nbformat.v4.new_code_cell("\n".join(parameters), metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(place + 1, cell)
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=NOTEBOOK)
    parser.add_argument("--folder", type=Path, help="an existing folder to work in, which is kept (default: a new one)")
    parser.add_argument("--weights", type=Path, help="published weights, put beside the notebook under their name")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if arguments.parameters and arguments.out == NOTEBOOK:
        parser.error("parameters of your own go with --out FILE: the notebook's outputs come from its own")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if arguments.parameters:
        notebook = with_parameters(notebook, arguments.parameters)
    given = arguments.folder and arguments.folder.resolve()
    with nullcontext(given) if given else tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        if arguments.weights:
            (Path(folder) / arguments.weights.name).symlink_to(arguments.weights.resolve())
        try:
            executed(notebook, Path(folder))
        except nbclient.exceptions.CellExecutionError as error:
            print(error, file=sys.stderr)
            return 1
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when each cell ran
        # Where on this machine that was.
        text = nbformat.writes(notebook).replace(f"{folder}/", "").replace(str(ROOT), "checkout")
    arguments.out.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
