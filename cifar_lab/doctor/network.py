"""The nodes of this job: where this one stands, whether all reach each other, and how fast they talk."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cifar_lab.cluster.interfaces import chosen_interface
from cifar_lab.cluster.links import free_port, patience
from cifar_lab.cluster.meeting import Meeting, meeting
from cifar_lab.cluster.place import Node, find_node
from cifar_lab.cluster.reach import MEND, TRY_AGAIN, MeetingError
from cifar_lab.doctor.check import Check
from cifar_lab.doctor.child import TIMEOUT, ask
from cifar_lab.doctor.packages import SET_UP
from cifar_lab.errors import UsageError

TORCH_SECONDS = 60.0
SLOW_BYTES_PER_SECOND = 100e6  # about gigabit Ethernet
# How long a node waits for one whose own checks take longer.
SECONDS_BETWEEN = 90.0
LINKS_FIX = {
    MEND: "fix what is named there",
    TRY_AGAIN: "see that each node is up and started this at the same time, and that no firewall is between them",
}


@dataclass
class Links:
    """This node among the others; `meeting` is None where there are no others or they cannot be reached."""

    node: Node | None = None
    meeting: Meeting | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def num_nodes(self) -> int:
        return self.node.num_nodes if self.node else 1

    @property
    def is_main(self) -> bool:
        return self.node is None or self.node.rank == 0

    @property
    def host(self) -> str:
        return self.node.host if self.node else socket.gethostname()


@contextmanager
def find_links(environ: Mapping[str, str]) -> Iterator[Links]:
    """Meet the other nodes of this job, if there are any, until the end of the context."""
    found, problem, interface = Links(), None, None
    try:
        found.node = find_node(environ)
        interface = chosen_interface(environ, alone=found.num_nodes == 1)
    except UsageError as error:
        problem = str(error)
        found.checks.append(Check("place", "FAIL", problem, "see there"))
    with ExitStack() as stack:
        if found.node and found.num_nodes > 1:
            how: dict[str, Any] = {"interface": interface, "problem": problem, "seconds": patience(environ)}
            try:
                found.meeting = stack.enter_context(meeting(found.node, ["doctor"], **how))
            except MeetingError as error:
                others = [line for line in error.lines if problem is None or problem not in line]
                found.checks += [Check("links", "FAIL", line, LINKS_FIX[error.exit_status]) for line in others]
            except ImportError as error:
                found.checks.append(Check("links", "FAIL", f"they cannot be tested: {error}", SET_UP))
            else:
                names = ", ".join(f"{card.host} ({card.interface} {card.address})" for card in found.meeting.cards)
                found.checks.append(Check("links", "ok", f"every node reaches every other: {names}"))
        elif not problem:
            found.checks.append(Check("nodes", "ok", "one"))
        yield found


def all_reduce(backend: str, devices: Sequence[str], counts: Sequence[int], met: Meeting | None = None) -> Check:
    """One process for each of this node's `devices`; `counts` has how many each node has. All nodes call it alike.

    Without a meeting this machine is the only one.
    """
    first, where, variables, hosts = 0, {"address": "127.0.0.1", "port": free_port(0)}, {}, {}
    if met is not None:
        first, where = sum(counts[: met.node.rank]), {"address": met.master_addr, "port": met.node.master_port}
        hosts = {card.address: card.host for card in met.cards}
        named = {"GLOO_SOCKET_IFNAME": met.me.interface, "NCCL_SOCKET_IFNAME": met.me.interface}
        variables = {name: value for name, value in named.items() if value and name not in os.environ}
    common = {"backend": backend, "world_size": sum(counts), "serve": met is None, **where}

    def of(number: int) -> dict[str, Any]:
        question = {"device": devices[number], "rank": first + number, **common}
        return {"device": devices[number]} | ask(question, TORCH_SECONDS + 2 * TIMEOUT, **variables)

    with ThreadPoolExecutor(len(devices)) as pool:
        answers = pool.map(of, range(len(devices)))
        return all_reduce_check(backend, min(answers, key=lambda found: found.get("bandwidth", 0.0)), hosts)


def all_reduce_check(backend: str, found: Mapping[str, Any], hosts: Mapping[str, str]) -> Check:
    """`found` is what this node's program said; `hosts` are the names of the nodes by address."""
    name = f"all-reduce ({backend})"
    if "bandwidth" not in found:
        error = str(found.get("error", "no answer"))
        named = [f"{address} is {host}" for address, host in hosts.items() if address in error]
        where = "in the all-reduce" if "joined" in found else "while the processes joined"
        where += f" of {found['device']}" if ":" in found.get("device", "") else ""
        fix = "firewalls, or another GLOO_SOCKET_IFNAME"
        if backend == "nccl":
            fix = "NCCL_DEBUG=INFO shows more; a container needs --shm-size=8g or --ipc=host"
        return Check(name, "FAIL", f"{where}: {error}{' (' + ', '.join(named) + ')' if named else ''}", fix)
    says = f"{found['latency'] * 1e3:.2f} ms, {found['bandwidth'] / 1e6:,.0f} MB/s"
    if backend == "nccl" and found["bandwidth"] < SLOW_BYTES_PER_SECOND:
        fix = "choose a faster interface with NCCL_SOCKET_IFNAME, or InfiniBand (NCCL_IB_HCA)"
        return Check(name, "warning", f"{says}: slower than Ethernet of 1 Gbit/s", fix)
    return Check(name, "ok", says)
