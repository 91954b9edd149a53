"""The nodes of a job meet at node 0 before anything is started, and each learns what keeps any of them from it.

They meet in a `torch.distributed.TCPStore` where the launcher's store will be, so that what blocks one blocks the
other; the port is free again when the meeting ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cifar_lab.cluster.interfaces import Interface, interface_of, interface_towards
from cifar_lab.cluster.place import Node
from cifar_lab.cluster.reach import ANSWER_SECONDS, MEND, TRY_AGAIN, Card, MeetingError, join, serve, unreachable

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

MEETING_SECONDS = 45.0
PAIRS = (
    "all pairs of nodes must reach each other, on any port: look at firewalls and routes, or choose another interface "
    "with GLOO_SOCKET_IFNAME"
)


@dataclass
class Meeting:
    """All nodes by rank, and the address of node 0; `store` is theirs until the meeting ends."""

    node: Node
    store: TCPStore | None
    cards: list[Card]
    master_addr: str = ""

    @property
    def me(self) -> Card:
        return self.cards[self.node.rank]

    def gather(self, name: str, value: Any, seconds: float) -> list[Any]:
        """`value` of every node by rank; each `name` once. Raises MeetingError where one is lost."""
        assert self.store is not None
        found = _gather(self.store, self.node, name, value, seconds)
        lost = [self.node.name(rank) for rank in range(self.node.num_nodes) if rank not in found]
        if lost:
            raise MeetingError([f"{', '.join(lost)}: lost while the nodes connected"], TRY_AGAIN)
        return [found[rank] for rank in range(self.node.num_nodes)]


@contextmanager
def meeting(
    node: Node,
    arguments: list[str],
    *,
    interface: Interface | None = None,
    problem: str | None = None,
    seconds: float = MEETING_SECONDS,
) -> Iterator[Meeting]:
    """Meet the other nodes; `arguments` must be equal on all, `problem` is what keeps this one from starting.

    Raises MeetingError, within `seconds` and a little more, on each of them.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # what the store would log is said here
    own = serve(node)
    begun = time.monotonic()  # torch is loaded, for which a file system may take as long
    store, seen = (own, "") if node.rank == 0 else join(node, interface, seconds)
    hello = {
        "host": node.host,
        "num_nodes": node.num_nodes,
        "arguments": arguments,
        "problem": problem,
        "master_addr": seen,
    }
    _claim(store, node)
    met, came = Meeting(node, store, []), {0}
    try:
        hellos = _gather(store, node, "hello", hello, max(1.0, begun + seconds - time.monotonic()))
        came |= set(hellos)
        _judge(node, hellos | {node.rank: hello}, seconds)
        met.master_addr = hellos[1]["master_addr"]
        way = interface or (interface_of if node.rank == 0 else interface_towards)(met.master_addr)
        card = Card(node.rank, node.host, way.name, way.address, own.port)
        met.cards = [Card(**card) for card in met.gather("card", asdict(card), 4 * ANSWER_SECONDS)]
        found = met.gather("links", unreachable(node, met.cards), 4 * ANSWER_SECONDS)
        if lines := [line for of_node in found for line in of_node]:
            raise MeetingError([*lines, PAIRS], TRY_AGAIN)
        yield met
    finally:
        met.store = None
        with suppress(RuntimeError):  # node 0 is gone
            store.set(f"left/{node.rank}", "")
            if node.rank == 0:
                _there(store, [f"left/{rank}" for rank in came], ANSWER_SECONDS)
        del own, store


def _gather(store: TCPStore, node: Node, name: str, value: Any, seconds: float) -> dict[int, Any]:
    """What each node set as `name`, of those that did within `seconds`; node 0 decides, so that all see the same."""
    keys = [f"{name}/{rank}" for rank in range(node.num_nodes)]
    try:
        store.set(keys[node.rank], json.dumps(value))
        if node.rank == 0:
            _there(store, keys, seconds)
            values = {rank: store.get(key).decode() for rank, key in enumerate(keys) if store.check([key])}
            store.set(name, json.dumps(values))
        elif not _there(store, [name], seconds + ANSWER_SECONDS):
            raise MeetingError([f"{node.name(0)} did not answer while the nodes connected"], TRY_AGAIN)
        if store.check(["refused"]):
            raise MeetingError([store.get("refused").decode()], MEND)
        return {int(rank): json.loads(text) for rank, text in json.loads(store.get(name)).items()}
    except RuntimeError as error:
        raise MeetingError([f"{node.name(0)} was lost while the nodes connected"], TRY_AGAIN) from error


def _there(store: TCPStore, keys: list[str], seconds: float) -> bool:
    """Whether all keys are set within `seconds`; not by store.wait, which hears no Ctrl-C."""
    deadline = time.monotonic() + seconds
    while not (there := store.check(keys)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return there


def _claim(store: TCPStore, node: Node) -> None:
    """Take the rank of this node. Raises MeetingError where another host has it."""
    held = store.compare_set(f"rank/{node.rank}", "", node.host).decode()
    if held != node.host:
        line = f"{held} and {node.host} both say that they are node {node.rank}: give each its NODE_RANK"
        store.set("refused", line)
        raise MeetingError([line], MEND)


def _judge(node: Node, hellos: Mapping[int, Mapping[str, Any]], seconds: float) -> None:
    """Raises MeetingError with all that keeps the nodes from starting, alike on each of them."""
    first, lines = hellos[0], []
    for hello in hellos.values():
        if hello["num_nodes"] != first["num_nodes"]:
            counts = f"{hello['num_nodes']} nodes, {first['host']} that there are {first['num_nodes']}"
            lines.append(f"{hello['host']} says that there are {counts}")
    problems = [hello["problem"] for hello in hellos.values()]
    if problems[0] and problems == problems[:1] * node.num_nodes:
        lines.append(problems[0])  # of a recipe or an option that all were given: told as one
    else:
        lines += [
            f"node {rank} ({hello['host']}): {hello['problem']}" for rank, hello in hellos.items() if hello["problem"]
        ]
    for hello in hellos.values():
        if not lines and hello["arguments"] != first["arguments"]:
            pair = (f"{' '.join(one['arguments'])} on {one['host']}" for one in (first, hello))
            lines.append(f"the nodes were started with different arguments: {', '.join(pair)}")
    status = MEND if lines else TRY_AGAIN
    missing = [node.name(rank) for rank in range(first["num_nodes"]) if rank not in hellos]
    if missing:
        hint = "" if len(hellos) > 1 or node.hosts else " (does each node have its own NODE_RANK?)"
        where = f"to port {node.master_port} of {first['host']} within {seconds:.0f} s"
        lines.append(f"{', '.join(missing)} did not connect {where}: if it is up, see its own message{hint}")
    if lines:
        raise MeetingError(lines, status)
