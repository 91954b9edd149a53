"""What launch/node.sh asks before it starts anything: where this node stands, and whether the job can start at all.

    python -m cifar_lab.cluster.links --nproc N [RECIPE key=value ...]

prints KEY=VALUE lines: num_nodes, node_rank, host, interface, address, master_addr, master_port. Otherwise it says what
is wrong and ends with 2 where something must be mended (the recipe, a variable, an option) or with 75 where another try
may do (a host that cannot be reached, a port in use). With several nodes every node says so, within a minute.
"""

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from cifar_lab.cluster.interfaces import chosen_interface
from cifar_lab.cluster.meeting import MEETING_SECONDS, meeting
from cifar_lab.cluster.place import Node, find_node
from cifar_lab.cluster.reach import MEND, MeetingError
from cifar_lab.errors import UsageError, UserError
from cifar_lab.recipe import load_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import Place, startable


def main(argv: Sequence[str] | None = None) -> int:
    """Print where this node stands; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_intermixed_args(given)
    try:
        node = find_node(os.environ)
    except UsageError as error:
        if os.environ.get("SLURM_LOCALID", "0") == "0":
            print(f"{socket.gethostname()}: {error}", file=sys.stderr)
        return error.exit_status
    interface, problem = None, None
    try:
        _check_recipe(options)
        interface = chosen_interface(os.environ, alone=node.num_nodes == 1)
    except UserError as error:
        problem = str(error)
    if node.num_nodes == 1:
        if problem:
            print(problem, file=sys.stderr)
            return MEND
        # A host name that leads nowhere does not matter to the loopback.
        name = interface.name if interface else "lo" if sys.platform == "linux" else ""
        _print(node, name, "127.0.0.1", node.master_addr, free_port(node.master_port))
        return 0
    try:
        with meeting(node, given, interface=interface, problem=problem, seconds=patience(os.environ)) as met:
            me, address = met.me, met.master_addr
    except MeetingError as error:
        alike = error.lines == [problem]  # on all nodes: node 0 tells it for all
        told = str(error) if problem is None or problem in str(error) else f"{error}\n{problem}"
        for line in told.splitlines() if node.rank == 0 or not alike else []:
            print(line if alike else f"{node.host}: {line}", file=sys.stderr)
        return MEND if problem else error.exit_status
    _print(node, me.interface, me.address, address, node.master_port)
    return 0


def patience(environ: Mapping[str, str]) -> float:
    """Seconds that a node waits for the others."""
    return float(environ.get("CIFAR_LAB_MEETING_SECONDS") or MEETING_SECONDS)


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else any free port of this machine."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server(("", port)) as server:
            return int(server.getsockname()[1])
    raise OSError("no port of this machine is free")


def _print(node: Node, interface: str, own: str, master: str, port: int) -> None:
    print(f"num_nodes={node.num_nodes}\nnode_rank={node.rank}\nhost={node.host}\ninterface={interface}")
    print(f"address={own}\nmaster_addr={master}\nmaster_port={port}")


def _check_recipe(options: argparse.Namespace) -> None:
    """Raises UserError for the recipe or its run directory: behind a launcher the exit status would be lost."""
    if options.recipe:
        load = partial(load_recipe, options.recipe, options.overrides)
        recipe = startable(load, Place(options.runs, options.run_dir, options.fresh))
        RunDir.locate(recipe, runs=options.runs, run_dir=options.run_dir, fresh=options.fresh)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cifar_lab.cluster.links", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("recipe", metavar="RECIPE", nargs="?")
    parser.add_argument("overrides", metavar="key=value", nargs="*")
    for option in ("--nproc", "--with", "--strategy", "--run-dir"):
        parser.add_argument(option)
    parser.add_argument("--runs", default="runs")
    for option in ("--fresh", "--accept-micro-batch"):
        parser.add_argument(option, action="store_true")
    return parser


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A store that waits for a program that keeps silent, and hears from it now, would abort the interpreter's end.
    os._exit(status)
