"""`cifar-lab report RUN...`: the ranked table, and a page with figures, from run directories alone."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.command import answer, make_parser
from cifar_lab.errors import UsageError
from cifar_lab.report.contents import contents
from cifar_lab.report.files import told, write_report
from cifar_lab.report.read import read_run
from cifar_lab.rundir.placement import find_runs

EPILOG = """\
examples:
  cifar-lab report runs
  cifar-lab report runs/plain18 runs/plain34 --out /tmp/report
  cifar-lab report runs --terminal
Without --out the report goes to report/ in the folder that all RUNs have in common, else in the current folder. It
consists of report.html, report.md, results.csv and plots/ (SVG).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and write the report, or with --terminal print the claims instead; returns the exit status."""
    parser = make_parser("report", "Compare runs: a ranked table, figures and checked claims.", EPILOG)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory or a folder of runs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report (default: see below)")
    parser.add_argument("--terminal", action="store_true", help="print the table and the claims; write no files")
    return answer(parser, _report, argv)


def _report(options: argparse.Namespace) -> int:
    found = contents([read_run(path) for path in find_runs(options.runs)])
    print(told(found, claims=options.terminal))
    if options.terminal:
        return 0
    # The folder that all have in common, as it was named where that goes; with nothing in common, the current one.
    common = os.path.commonpath([path.absolute() for path in options.runs])
    shared = Path() if common == os.path.sep else Path(os.path.relpath(common))
    out = options.out or (options.runs[0] if len(options.runs) == 1 else shared) / "report"
    try:
        print(f"report: {write_report(found, out)}")
    except OSError as error:
        where = error.filename or out
        raise UsageError(f"cannot write {where}: {error.strerror}; name a folder with --out DIR") from error
    return 0
