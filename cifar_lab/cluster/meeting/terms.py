"""What the nodes of a job tell each other when they meet, and what comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from cifar_lab.cluster.interfaces import Interface
from cifar_lab.cluster.place import Node
from cifar_lab.errors import UserError

ANSWER_SECONDS = 5.0
REACH_SECONDS = 6.0
TRY_AGAIN, MEND = 75, 2  # exit statuses
MAX_LINES = 10
PROBLEM_SECONDS = 10.0  # how long others are waited for when it is known that nothing will be started


class MeetingError(UserError):
    """Why the nodes cannot start together; `common`: all nodes, this one too, found the same problem by themselves."""

    def __init__(self, lines: list[str], status: int, *, common: bool = False) -> None:
        hidden = [f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
        self.lines = lines[:MAX_LINES] + hidden
        super().__init__("\n".join(self.lines))
        self.exit_status, self.common = status, common


@dataclass(frozen=True)
class Card:
    """What a node says about itself; `clock` is its time in Unix seconds, `problem` what keeps it from starting.

    `arguments` must be equal on all nodes; `notes` are for the caller.
    """

    rank: int
    num_nodes: int
    host: str
    interface: str
    address: str
    port: int
    clock: float
    arguments: list[str]
    problem: str | None
    notes: list[Any]

    @property
    def name(self) -> str:
        return f"node {self.rank} ({self.host})"


@dataclass(frozen=True)
class Offer:
    """What this node brings: its interface if it is chosen already, and the fields of Card."""

    interface: Interface | None
    arguments: list[str]
    problem: str | None = None
    notes: tuple[Any, ...] = ()

    def card(self, node: Node, port: int) -> Card:
        name, address = (self.interface.name, self.interface.address) if self.interface else ("", "")
        return Card(
            rank=node.rank,
            num_nodes=node.num_nodes,
            host=node.host,
            interface=name,
            address=address,
            port=port,
            clock=time.time(),
            arguments=self.arguments,
            problem=self.problem,
            notes=list(self.notes),
        )


@dataclass(frozen=True)
class Meeting:
    """All nodes by rank, this one's card, the address of node 0, and the others' clocks against that of node 0."""

    cards: list[Card]
    me: Card
    master_addr: str
    skews: dict[str, float]
