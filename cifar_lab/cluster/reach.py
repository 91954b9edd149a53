"""Whether a node reaches another one, by TCPStores: that of node 0 is the meeting's, the others are for trying."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cifar_lab.cluster.interfaces import Interface, interface_towards, interfaces, resolve, within
from cifar_lab.cluster.place import Node
from cifar_lab.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

ANSWER_SECONDS = 6.0
TRY_AGAIN, MEND = 75, 2  # exit statuses
MAX_LINES = 10
# More than a packet holds: a path that loses large packets passes small ones.
PADDING = "." * 65536


class MeetingError(UserError):
    """Why the nodes cannot start together, a line each."""

    def __init__(self, lines: list[str], status: int) -> None:
        hidden = [f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
        self.lines = lines[:MAX_LINES] + hidden
        super().__init__("\n".join(self.lines))
        self.exit_status = status


@dataclass(frozen=True)
class Card:
    """Where the others find a node."""

    rank: int
    host: str
    interface: str
    address: str
    port: int


def serve(node: Node) -> TCPStore:
    """A store that says who this node is; that of node 0 is the meeting's. Raises MeetingError."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    port = node.master_port if node.rank == 0 else 0
    try:
        socket.create_server(("", port)).close()  # says why where the store would only say that it failed
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is in use by another program" if taken else f"cannot be opened ({_reason(error)})"
        line = f"port {port} of {node.host} {why}: set MASTER_PORT to another one"
        raise MeetingError([line], TRY_AGAIN if taken else MEND) from error
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    store.set("who", f"{node.token} {node.rank} {PADDING}")
    return store


def join(node: Node, interface: Interface | None, seconds: float) -> tuple[TCPStore, str]:
    """The store of node 0, and the address at which it was found. Raises MeetingError."""
    deadline, last = time.monotonic() + seconds, "no answer"
    address, way = node.master_addr, interface
    while time.monotonic() < deadline:
        try:
            address = resolve(node.master_addr, 10)
            if address.startswith("127."):
                itself = f"MASTER_ADDR={node.master_addr} is {address} on {node.host}, which is {node.host} itself"
                raise MeetingError([f"{itself}: set it to an address of node 0 that the others reach"], MEND)
            way = interface or interface_towards(address)
            store, token, _ = _connect(address, node.master_port)
            if token == node.token:
                return store, address
            last = "another job listens there"
        except OSError as error:
            last = _reason(error)
        time.sleep(0.3)
    here = way or ", ".join(str(interface) for interface in interfaces() if not interface.loopback)
    where = address if address == node.master_addr else f"{node.master_addr} ({address})"
    to = f"{node.name(0)} at {where}, port {node.master_port}, by {here}"
    raise MeetingError([f"{node.name(node.rank)} cannot reach {to}: {last} within {seconds:.0f} s"], TRY_AGAIN)


def unreachable(node: Node, cards: Sequence[Card]) -> list[str]:
    """A line for each node that does not answer this one, asked all at once.

    gloo and NCCL connect all pairs, and hang where one cannot.
    """

    def problem(card: Card) -> str | None:
        try:
            _, *who = _connect(card.address, card.port)
        except OSError as error:
            return _reason(error)
        # Bridges of container software have the same address on every machine.
        same = who == [node.token, str(card.rank)]
        return None if same else f"{card.address} is another machine, seen from here"

    me, others = cards[node.rank], [card for card in cards if card.rank != node.rank]
    here = f"node {me.rank} ({me.host}, {me.interface} {me.address})"
    with ThreadPoolExecutor(64) as pool:
        return [
            f"{here} cannot reach node {card.rank} ({card.host}) at {card.address} ({card.interface}): {said}"
            for card, said in zip(others, pool.map(problem, others), strict=True)
            if said
        ]


def _connect(address: str, port: int) -> tuple[TCPStore, str, str]:
    """A node's store, its token and its rank. Raises OSError."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    socket.create_connection((address, port), timeout=ANSWER_SECONDS).close()  # a store would try for long, and not say

    def ask() -> tuple[TCPStore, str, str]:
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=ANSWER_SECONDS))
        token, rank, _ = store.get("who").decode().split()
        return store, token, rank

    try:
        return within(ANSWER_SECONDS, ask)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise ConnectionError("another program listens there, or large packets are lost") from error


def _reason(error: OSError) -> str:
    """In a few words."""
    if isinstance(error, TimeoutError):
        return "no answer"
    return error.strerror or str(error) or type(error).__name__
