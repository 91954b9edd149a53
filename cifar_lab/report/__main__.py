"""`python -m cifar_lab.report RUN...`: a table of runs and the curves of each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cifar_lab.report.plots import plot_curves
from cifar_lab.report.read import ReportError, RunRecord, find_runs, read_run
from cifar_lab.report.table import table


def main(argv: list[str] | None = None) -> int:
    """Print the table, write curves.png into each run directory (or `--out`), return the exit status."""
    parser = argparse.ArgumentParser(
        prog="cifar-lab report", description="Table and curves from run directories alone."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the plots there instead of into the runs")
    options = parser.parse_args(argv)
    try:
        records = [read_run(path) for path in find_runs(options.runs)]
    except ReportError as error:
        print(f"cifar-lab report: {error}", file=sys.stderr)
        return 2
    print(table(records))
    status = 0
    for record in records:
        if not record.metrics:
            continue
        path = plot_path(record, options.out)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            plot_curves(record, path)
        except OSError as error:
            print(f"cannot write {path}: {error.strerror}; choose another place with --out DIR", file=sys.stderr)
            status = 1
        else:
            print(f"curves: {path}")
    return status


def plot_path(record: RunRecord, out: Path | None) -> Path:
    """Where the curves of a run go."""
    return record.path / "curves.png" if out is None else out / f"{record.label.replace('/', '-')}-curves.png"


if __name__ == "__main__":
    raise SystemExit(main())
