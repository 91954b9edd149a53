"""The nodes of this job: where this one stands, whether all reach each other, and whether their clocks agree."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cifar_lab.cluster.interfaces import Interface, resolve
from cifar_lab.cluster.links import chosen_interface, patience
from cifar_lab.cluster.meeting import MEND, Meeting, MeetingError, Offer, meet
from cifar_lab.cluster.place import Node, PlaceError, find_node
from cifar_lab.doctor.check import Check
from cifar_lab.doctor.child import Child
from cifar_lab.doctor.collective import TIMEOUT, collective_check
from cifar_lab.errors import UserError

SKEW_SECONDS = 5.0
LOOKUP_SECONDS = 2.0
TORCH_SECONDS = 60.0
# How long a node waits for one whose own checks take longer.
SECONDS_BETWEEN = 90.0
LINKS_FIX = {
    MEND: "mend what is named there",
    75: "see that each node is up and started this at the same time, and that no firewall is between them",
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


def find_links(environ: Mapping[str, str]) -> Links:
    """Meet the other nodes of this job, if there are any."""
    found = Links(checks=[_lookup()])
    try:
        found.node = node = find_node(environ)
        interface = chosen_interface(environ, alone=node.num_nodes == 1)
    except PlaceError as error:
        found.checks.append(Check("place", "FAIL", str(error), "as it says"))
        if found.node is None or found.num_nodes == 1:
            return found
        interface = None
    problem = found.checks[-1].says if found.checks[-1].name == "place" else None
    if node.num_nodes == 1:
        found.checks.append(Check("nodes", "ok", "one"))
        return found
    try:
        found.meeting = met = meet(node, Offer(interface, ["doctor"], problem), patience(environ))
    except UserError as error:
        lines = error.lines if isinstance(error, MeetingError) else [str(error)]
        others = [line for line in lines if problem is None or problem not in line]
        found.checks += [Check("links", "FAIL", line, LINKS_FIX[error.exit_status]) for line in others]
        return found
    names = ", ".join(f"{card.host} ({card.interface} {card.address})" for card in met.cards)
    found.checks.append(Check("links", "ok", f"each reaches each: {names}"))
    found.checks += _skews(met.skews)
    return found


def all_reduces(links: Links, backends: Sequence[str]) -> Iterator[Check]:
    """One process a node, over each backend. All nodes call it alike."""
    met, node = links.meeting, links.node
    assert met is not None
    assert node is not None
    hosts = {card.address: card.host for card in met.cards}
    named = {"GLOO_SOCKET_IFNAME": met.me.interface, "NCCL_SOCKET_IFNAME": met.me.interface}
    variables = {name: value for name, value in named.items() if value and name not in os.environ}
    for backend in backends:
        question = {
            "backend": backend,
            "rank": node.rank,
            "world_size": node.num_nodes,
            "address": met.master_addr,
            "port": node.master_port,
        }
        child = Child("collective", question, **variables)
        found = child.answer(time.monotonic() + TORCH_SECONDS + 2 * TIMEOUT)
        yield collective_check(backend, found, hosts)
        share(links, [])  # the next one needs the port


def share(links: Links, notes: list[Any]) -> dict[str, list[Any]] | None:
    """What each host noted, by its name; None where they could not meet again."""
    assert links.node is not None
    assert links.meeting is not None
    node = replace(links.node, token=f"{links.node.token} again")
    me = links.meeting.me
    interface = Interface(me.interface, me.address, up=True, loopback=False)
    try:
        met = meet(node, Offer(interface, ["doctor"], notes=tuple(notes)), SECONDS_BETWEEN)
    except (UserError, OSError):
        return None
    return {card.host: card.notes for card in met.cards}


def share_checks(links: Links, checks: list[Check]) -> dict[str, list[Check]]:
    """The checks of each host; of this one alone where the others cannot be reached."""
    if links.meeting is not None:
        shared = share(links, [asdict(check) for check in checks])
        if shared is not None:
            return {host: [Check(**note) for note in notes] for host, notes in shared.items()}
    return {links.host: checks}


def _lookup() -> Check:
    """Looking up the own name: programs of all kinds do it, and hang for long where it does."""
    host = socket.gethostname()
    begun = time.monotonic()
    try:
        resolve(host, 10)
        problem = ""
    except OSError as error:
        problem = f"the own name {host} cannot be looked up ({error.strerror or error})"
    seconds = time.monotonic() - begun
    if not problem and seconds > LOOKUP_SECONDS:
        problem = f"looking up the own name {host} took {seconds:.0f} s"
    if problem:
        return Check("host name", "warning", problem, f"a line for {host} in /etc/hosts, or mend the name server")
    return Check("host name", "ok", host)


def _skews(skews: Mapping[str, float]) -> Iterator[Check]:
    off = {host: skew for host, skew in skews.items() if abs(skew) > SKEW_SECONDS}
    if off:
        says = ", ".join(f"{host} by {skew:+.0f} s" for host, skew in off.items())
        fix = "run an NTP client on each node: heartbeats are judged by their age"
        yield Check("clocks", "warning", f"they differ from that of node 0: {says}", fix)
    else:
        yield Check("clocks", "ok", f"within {max(map(abs, skews.values()), default=0):.1f} s")
