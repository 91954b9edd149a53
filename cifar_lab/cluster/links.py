"""What launch/node.sh asks before it starts anything: where this node stands, and whether the job can start at all.

    python -m cifar_lab.cluster.links --nproc N [RECIPE key=value ...]

prints KEY=VALUE lines: num_nodes, node_rank, host, interface, master_addr, master_port. Otherwise it says what is wrong
and ends with 2 where something must be mended (the recipe, a variable, an option) or with 75 where another try may do
(a host that cannot be reached, a port in use). With several nodes every node says so, within a minute.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence

from cifar_lab.cli.argument_types import duration
from cifar_lab.cluster.interfaces import Interface, interfaces, named_interface
from cifar_lab.cluster.meeting import MEETING_SECONDS, MEND, MeetingError, Offer, meet
from cifar_lab.cluster.place import Node, PlaceError, find_node
from cifar_lab.errors import UserError

PATIENCE = "CIFAR_LAB_MEETING_SECONDS"  # how long a node waits for the others


def main(argv: Sequence[str] | None = None) -> int:
    """Print where this node stands; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_intermixed_args(given)
    try:
        node = find_node(os.environ)
    except PlaceError as error:
        if os.environ.get("SLURM_LOCALID", "0") == "0":
            print(f"{socket.gethostname()}: {error}", file=sys.stderr)
        return error.exit_status
    recipe_problem = _recipe_problem(options) if options.recipe else None
    if recipe_problem and node.rank == 0:
        print(recipe_problem, file=sys.stderr)  # before the others are waited for
    problem, interface = recipe_problem, None
    try:
        interface = chosen_interface(os.environ, alone=node.num_nodes == 1)
    except PlaceError as error:
        problem = problem or str(error)
    try:
        where = (
            _alone(node, interface, problem) if node.num_nodes == 1 else _meet(node, Offer(interface, given, problem))
        )
    except UserError as error:
        told = recipe_problem is not None and (node.rank == 0 or (isinstance(error, MeetingError) and error.common))
        for line in _news(node, error, problem, told):
            print(f"{node.host}: {line}", file=sys.stderr)
        return MEND if problem else error.exit_status
    print("\n".join(f"{key}={value}" for key, value in where.items()))
    return 0


def _news(node: Node, error: UserError, problem: str | None, told: bool) -> list[str]:
    """What this node says of an error: its own problem alone, unless it is node 0 or could not reach it."""
    lines = error.lines if isinstance(error, MeetingError) else [str(error)]
    others = [line for line in lines if problem is None or problem not in line]
    own = [problem] if problem and not told else []
    return own + others if node.rank == 0 or problem is None or error.exit_status != MEND else own


def _alone(node: Node, interface: Interface | None, problem: str | None) -> dict[str, str | int]:
    if problem:
        raise PlaceError(problem)
    # A host name that leads nowhere does not matter to the loopback.
    name = interface.name if interface else "lo" if sys.platform == "linux" else ""
    return _lines(node, name, node.master_addr, free_port(node.master_port))


def _meet(node: Node, offer: Offer) -> dict[str, str | int]:
    met = meet(node, offer, patience(os.environ))
    return _lines(node, met.me.interface, met.master_addr, node.master_port)


def patience(environ: Mapping[str, str]) -> float:
    """Seconds that a node waits for the others. Raises PlaceError."""
    try:
        return duration(environ.get(PATIENCE) or str(MEETING_SECONDS))
    except argparse.ArgumentTypeError as error:
        raise PlaceError(f"{PATIENCE}: {error}") from None


def chosen_interface(environ: Mapping[str, str], *, alone: bool) -> Interface | None:
    """The one that the user named with GLOO_SOCKET_IFNAME. Raises PlaceError where it cannot be used."""
    names = environ.get("GLOO_SOCKET_IFNAME")
    found = interfaces() if names else []
    return named_interface("GLOO_SOCKET_IFNAME", names, found=found, alone=alone) if names and found else None


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else any free port of this machine."""
    for port in (wanted, 0):
        try:
            with socket.create_server(("", port)) as server:
                found: int = server.getsockname()[1]
                return found
        except OSError:
            if port == 0:
                raise
    raise AssertionError


def _lines(node: Node, interface: str, address: str, port: int) -> dict[str, str | int]:
    return {
        "num_nodes": node.num_nodes,
        "node_rank": node.rank,
        "host": node.host,
        "interface": interface,
        "master_addr": address,
        "master_port": port,
    }


def _recipe_problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the recipe or its run directory: behind a launcher its exit status would be lost."""
    from cifar_lab.recipe import load_recipe
    from cifar_lab.rundir.directory import RunDir

    try:
        recipe = load_recipe(options.recipe, options.overrides)
        RunDir.locate(recipe, runs=options.runs, run_dir=options.run_dir, fresh=options.fresh)
    except UserError as error:
        return str(error)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cifar_lab.cluster.links", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("recipe", metavar="RECIPE", nargs="?")
    parser.add_argument("overrides", metavar="key=value", nargs="*")
    for option in ("--nproc", "--with", "--strategy", "--run-dir"):
        parser.add_argument(option)
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--fresh", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
