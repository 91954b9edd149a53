"""`cifar-lab report RUN...`: the ranked table, and a page with figures, from run directories alone."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.report.contents import contents
from cifar_lab.report.read import read_run
from cifar_lab.report.terminal import told
from cifar_lab.rundir.find import ReportError, find_runs

EPILOG = """\
examples:
  cifar-lab report runs
  cifar-lab report runs/plain18 runs/plain34 --out /tmp/report
  cifar-lab report runs --terminal
Without --out the page is report/report.html in the folder that the runs have in common. Beside it: report.md,
results.csv and plots/ (SVG).
"""


def main(argv: list[str] | None = None) -> int:
    """Print the table and write the report, or with --terminal print the claims instead; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="cifar-lab report",
        description="Table, figures and checked claims from run directories alone.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report (default: see below)")
    parser.add_argument("--terminal", action="store_true", help="print the checked claims too, and write no files")
    options = parser.parse_args(argv)
    try:
        records = [read_run(path) for path in find_runs(options.runs)]
    except ReportError as error:
        print(f"cifar-lab report: {error}", file=sys.stderr)
        return error.exit_status
    found = contents(records)
    print(told(found, claims=options.terminal))
    if options.terminal:
        return 0
    common = common_folder(options.runs)
    if options.out is None and common.resolve() == Path("/"):
        print("cifar-lab report: the runs have no folder in common: name one with --out DIR", file=sys.stderr)
        return 2
    out = options.out or common / "report"
    from cifar_lab.report.write import write_report

    try:
        path = write_report(found, out)
    except OSError as error:
        print(f"cannot write {error.filename or out}: {error.strerror}; name a folder with --out DIR", file=sys.stderr)
        return 1
    print(f"report: {path}")
    return 0


def common_folder(paths: Sequence[Path]) -> Path:
    """The folder that all paths have in common, as they were named where that goes."""
    if len(paths) == 1:
        return paths[0]
    return Path(os.path.relpath(os.path.commonpath([path.absolute() for path in paths])))


if __name__ == "__main__":
    raise SystemExit(main())
