"""`cifar-lab report RUN...`: the ranked table, and a page with figures, from run directories alone."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cifar_lab.report.contents import contents
from cifar_lab.report.files import told, write_report
from cifar_lab.report.read import read_run
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
    # The folder that all have in common, as it was named where that goes.
    common = os.path.relpath(os.path.commonpath([path.absolute() for path in options.runs]))
    out = options.out or (options.runs[0] if len(options.runs) == 1 else Path(common)) / "report"
    try:
        path = write_report(found, out)
    except OSError as error:
        print(f"cannot write {error.filename or out}: {error.strerror}; name a folder with --out DIR", file=sys.stderr)
        return 1
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
