"""`cifar-lab data [ls|rm]`: which decoded data sets the cache holds, how large they are, and how they go."""

import argparse
from collections.abc import Sequence
from datetime import datetime

from cifar_lab.cli.command import answer, make_parser
from cifar_lab.cli.printable import shown
from cifar_lab.cli.table import table
from cifar_lab.data.kept import Kept, find_kept, remove
from cifar_lab.errors import UsageError
from cifar_lab.files.cache import cache_root

HEADINGS = ("name", "pictures", "size", "decoded", "source")
EPILOG = """\
examples:
  cifar-lab data
  cifar-lab data rm cifar10-1a2b3c4d
  cifar-lab data rm --all
Pictures are decoded once, into the cache ($CIFAR_LAB_CACHE), and again when their files change. After `rm`, the next
run that needs them decodes them again. Runs that are training now are not disturbed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = make_parser("data", "List or remove the decoded data sets in the cache.", EPILOG)
    parser.add_argument("action", choices=("ls", "rm"), nargs="?", default="ls", help="list (default) or remove")
    parser.add_argument("names", metavar="NAME", nargs="*", help="names from the list (for ls: default all)")
    parser.add_argument("--all", action="store_true", help="with rm: remove all")
    return answer(parser, _data, argv)


def _data(options: argparse.Namespace) -> int:
    folder = cache_root() / "data"
    found = {kept.folder.name: kept for kept in find_kept(folder)}
    names = list(dict.fromkeys(options.names))
    unknown = [name for name in names if name not in found]
    if unknown:
        there = ", ".join(found) or "none"
        raise UsageError(f"{shown(folder)} holds no decoded data named {shown(unknown[0])!r}; there are: {there}")
    if options.action == "rm" and options.all == bool(names):
        raise UsageError("rm needs either names from the list of `cifar-lab data`, or --all")
    chosen = [found[name] for name in names or found]
    if options.action == "ls" and chosen:
        print(table(map(_row, chosen), HEADINGS, numbers=("pictures", "size")))
    for kept in chosen if options.action == "rm" else ():
        remove(kept)
        print(f"removed {kept.folder.name}")
    print(f"{_mib(sum(kept.num_bytes for kept in chosen))} in {shown(folder)}")
    return 0


def _row(kept: Kept) -> Sequence[str]:
    when = f"{datetime.fromtimestamp(kept.decoded):%Y-%m-%d %H:%M}"
    return kept.folder.name, kept.pictures, _mib(kept.num_bytes), when, shown(kept.about)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
