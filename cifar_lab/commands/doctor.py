"""`cifar-lab doctor [RECIPE] [key=value ...]`: can training run here, and if not, what is to be done?"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict

from cifar_lab.cli.argument_types import at_least_one
from cifar_lab.cli.command import answer, make_parser
from cifar_lab.doctor.check import Check, table
from cifar_lab.doctor.packages import SET_UP, package_checks

EPILOG = """\
examples:
  cifar-lab doctor
  cifar-lab doctor recipes/vit_tiny.yaml
  srun --ntasks-per-node=1 cifar-lab doctor RECIPE --strategy zero2
On several nodes start it on each node: by srun, or with NNODES, NODE_RANK and MASTER_ADDR. Node 0 prints for all.
Exit status: 0 training can run (there may be warnings), 1 it cannot, 2 wrong recipe or call.
"""
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = make_parser("doctor", "Check whether training can run here; each problem comes with its fix.", EPILOG)
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="also check what this recipe needs")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the recipe, such as data.root=DIR")
    parser.add_argument("--strategy", choices=STRATEGIES, default="ddp", help="how the run is started (default: ddp)")
    parser.add_argument("--nproc", metavar="N", type=at_least_one, help="processes a node (default: one a GPU, else 1)")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where runs will be made (default: runs)")
    parser.add_argument("--run-dir", metavar="DIR", help="the run directory, instead of one below --runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    before = threading.active_count()
    status = answer(parser, _run, argv)
    if threading.active_count() > before:
        # A store that waits for a program that keeps silent, and hears from it now, would abort the interpreter's end.
        sys.stdout.flush()
        os._exit(status)
    return status


def _run(options: argparse.Namespace) -> int:
    try:
        # Of what these import, any package may be missing.
        from cifar_lab.doctor.examine import examine
        from cifar_lab.recipe import load_recipe
    except ImportError as error:
        missing = Check("import", "FAIL", str(error), SET_UP)
        print(table([*package_checks({"deepspeed"} if options.strategy.startswith("zero") else ()), missing]))
        return 1
    recipe = load_recipe(options.recipe, options.overrides) if options.recipe is not None else None
    links, by_host = examine(options, recipe)
    failed = any(check.state == "FAIL" for checks in by_host.values() for check in checks)
    if not links.is_main:
        if len(by_host) == 1:  # node 0 knows nothing of what was found here
            wrong = [check for check in by_host[links.host] if check.state == "FAIL"]
            print(table(wrong, links.host), file=sys.stderr)
    elif options.json:
        hosts = {host: [asdict(check) for check in checks] for host, checks in by_host.items()}
        print(json.dumps({"ok": not failed, "hosts": hosts}, indent=2))
    else:
        _print(by_host, links.host, failed)
    return 1 if failed else 0


def _print(by_host: dict[str, list[Check]], host: str, failed: bool) -> None:
    print(table(by_host[host], host if len(by_host) > 1 else ""))
    for other, checks in by_host.items():
        wrong = [check for check in checks if check.state != "ok"]
        if other != host:
            print(table(wrong, other) if wrong else f"{other}: all checks ok")
    wrong = [check for checks in by_host.values() for check in checks if check.state == "warning"]
    warnings = f", {len(wrong)} warning{'s' * (len(wrong) != 1)}" if wrong else ""
    print(f"\ntraining {'cannot run: see FAIL' if failed else 'can run'}{warnings}")
