"""Whether every node of a job reaches every other: gloo and NCCL connect all pairs, and hang where one cannot."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from cifar_lab.cluster.meeting.channel import Channel, reason
from cifar_lab.cluster.meeting.terms import REACH_SECONDS, Card

# More than a packet holds: a path that loses large packets passes small ones.
PADDING = "." * 65536


class Answerer:
    """Answers the calls of the other nodes on a port of its own, until closed."""

    def __init__(self, token: str, rank: int) -> None:
        self._token, self._rank = token, rank
        self._server = socket.create_server(("", 0), backlog=512)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            channel = Channel(connection)
            if channel.receive(REACH_SECONDS).get("token") == self._token:
                channel.send(token=self._token, rank=self._rank)

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._server.close()


def unreachable(me: Card, cards: Sequence[Card], token: str) -> list[str]:
    """A line for each node that does not answer `me`, asked all at once."""
    others = [card for card in cards if card.rank != me.rank]
    with ThreadPoolExecutor(min(64, max(1, len(others)))) as pool:
        problems = list(pool.map(lambda card: _problem(card, token), others))
    return [
        f"{me.name[:-1]}, {me.interface} {me.address}) cannot reach {card.name} at {card.address} ({card.interface}): "
        f"{problem}"
        for card, problem in zip(others, problems, strict=True)
        if problem
    ]


def _problem(card: Card, token: str) -> str | None:
    try:
        with socket.create_connection((card.address, card.port), timeout=REACH_SECONDS) as connection:
            channel = Channel(connection)
            channel.send(token=token, padding=PADDING)
            answer = channel.receive(REACH_SECONDS)
    except (OSError, ValueError) as error:
        return reason(error)
    # Bridges of container software have the same address on every machine.
    same = answer.get("token") == token and answer.get("rank") == card.rank
    return None if same else f"{card.address} is another machine, seen from here"
