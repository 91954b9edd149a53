"""Node 0 of a meeting: it gathers the others, judges what they say, and tells all."""

from __future__ import annotations

import errno
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cifar_lab.cluster.interfaces import interface_of
from cifar_lab.cluster.meeting.channel import Channel, reason
from cifar_lab.cluster.meeting.mesh import unreachable
from cifar_lab.cluster.meeting.terms import (
    ANSWER_SECONDS,
    MAX_LINES,
    MEND,
    PROBLEM_SECONDS,
    REACH_SECONDS,
    TRY_AGAIN,
    Card,
    Meeting,
    MeetingError,
    Offer,
)
from cifar_lab.cluster.place import Node

PAIRS = (
    "all pairs of nodes must reach each other, on any port: look at firewalls and routes, or choose another interface "
    "with GLOO_SOCKET_IFNAME"
)


@dataclass(frozen=True)
class _Guest:
    channel: Channel
    card: Card
    local_address: str
    skew: float


def host(node: Node, offer: Offer, port: int, seconds: float) -> Meeting:
    me = offer.card(node, port)
    with _listen(node) as server:
        guests, findings = _gather(server, node, seconds)
    try:
        findings += _missing(node, guests, seconds)
        _settle(me, guests, findings + _differences(me, guests))
        first = guests[min(guests)].local_address
        if not me.address:
            me = replace(me, interface=interface_of(first).name, address=first)
        cards = [me, *(guests[rank].card for rank in sorted(guests))]
        skews = {guest.card.host: round(guest.skew, 3) for guest in guests.values()}
        for guest in guests.values():
            guest.channel.send(cards=[asdict(card) for card in cards], skews=skews)
        lines = unreachable(me, cards, node.token)
        for guest in guests.values():
            try:
                lines += guest.channel.receive(2 * REACH_SECONDS + ANSWER_SECONDS)["unreachable"]
            except (OSError, ValueError, KeyError) as error:
                lines.append(f"{guest.card.name} was lost while the links were tried: {reason(error)}")
        _settle(me, guests, [(line, TRY_AGAIN) for line in [*lines, *([PAIRS] if lines else [])]])
        _tell(guests, lines=[], status=0)
        return Meeting(cards, me, first, skews)
    except OSError as error:
        raise MeetingError([f"a node was lost while the nodes met: {reason(error)}"], TRY_AGAIN) from error
    finally:
        for guest in guests.values():
            guest.channel.close()


def _listen(node: Node) -> socket.socket:
    try:
        return socket.create_server(("", node.master_port), backlog=512)  # with SO_REUSEADDR
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is in use by another program" if taken else f"cannot be opened ({reason(error)})"
        raise MeetingError(
            [f"port {node.master_port} of {node.host} {why}: set MASTER_PORT to another one"],
            TRY_AGAIN if taken else MEND,
        ) from error


def _gather(server: socket.socket, node: Node, seconds: float) -> tuple[dict[int, _Guest], list[tuple[str, int]]]:
    """Who came, by rank, and what is wrong with it, with the exit status that each finding means."""
    arrived: queue.Queue[_Guest] = queue.Queue()
    guests: dict[int, _Guest] = {}
    findings: list[tuple[str, int]] = []
    deadline = time.monotonic() + seconds
    server.settimeout(0.1)
    while len(guests) < node.num_nodes - 1 and time.monotonic() < deadline:
        try:
            connection, _ = server.accept()
            threading.Thread(target=_welcome, args=(connection, node.token, arrived), daemon=True).start()
        except TimeoutError:
            pass
        while not arrived.empty():
            guest = arrived.get()
            wrong = _refusal(node, guests, guest.card)
            if wrong:
                _tell({0: guest}, lines=[wrong], status=MEND)
                guest.channel.close()
                findings.append((wrong, MEND))
            else:
                if guest.card.rank in guests:  # it lost its connection and came again
                    guests[guest.card.rank].channel.close()
                guests[guest.card.rank] = guest
            if wrong or guest.card.problem:
                deadline = min(deadline, time.monotonic() + PROBLEM_SECONDS)
    return guests, findings


def _welcome(connection: socket.socket, token: str, arrived: queue.Queue[_Guest]) -> None:
    """Hear who calls; strangers, such as scanners of ports or another job, are told the token and forgotten."""
    channel = Channel(connection)
    try:
        message = channel.receive(ANSWER_SECONDS)
        channel.send(token=token)
        if message.get("token") == token:
            card = Card(**message["card"])
            arrived.put(_Guest(channel, card, connection.getsockname()[0], card.clock - time.time()))
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    connection.close()


def _refusal(node: Node, guests: Mapping[int, _Guest], card: Card) -> str | None:
    if card.num_nodes != node.num_nodes:
        return f"{card.host} says that there are {card.num_nodes} nodes, {node.host} that there are {node.num_nodes}"
    known = guests.get(card.rank)
    if known and known.card.host != card.host:
        return f"{known.card.host} and {card.host} both say that they are node {card.rank}: give each its NODE_RANK"
    return None


def _missing(node: Node, guests: Mapping[int, _Guest], seconds: float) -> list[tuple[str, int]]:
    absent = [node.name(rank) for rank in range(1, node.num_nodes) if rank not in guests]
    if not absent:
        return []
    hint = "" if guests or node.hosts else " (is NODE_RANK another number on each node?)"
    verb = "did not come"
    where = f"to port {node.master_port} of {node.host} within {seconds:.0f} s"
    return [(f"{', '.join(absent[:MAX_LINES])} {verb} {where}: its own message says why, if it is up{hint}", TRY_AGAIN)]


def _differences(me: Card, guests: Mapping[int, _Guest]) -> list[tuple[str, int]]:
    """What nodes say is wrong with them, and who was started with other arguments than node 0."""
    cards = [me, *(guests[rank].card for rank in sorted(guests))]
    found = [(f"{card.name}: {card.problem}", MEND) for card in cards if card.problem]
    for card in cards[1:]:
        if not found and card.arguments != me.arguments:
            pairs = f"{' '.join(me.arguments)} on {me.host}, {' '.join(card.arguments)} on {card.host}"
            found.append((f"the nodes were started with different arguments: {pairs}", MEND))
    return found


def _settle(me: Card, guests: Mapping[int, _Guest], findings: list[tuple[str, int]]) -> None:
    """Tell all what was found, and raise it; nothing happens where nothing was."""
    if not findings:
        return
    lines, status = [line for line, _ in findings], MEND if any(s == MEND for _, s in findings) else TRY_AGAIN
    problems = {me.problem, *(guest.card.problem for guest in guests.values())}
    common = me.problem is not None and len(problems) == 1 and len(findings) == len(guests) + 1
    _tell(guests, lines=lines, status=status, common=common)
    raise MeetingError(lines, status, common=common)


def _tell(guests: Mapping[int, _Guest], **verdict: Any) -> None:
    for guest in guests.values():
        try:
            guest.channel.send(**verdict)
        except OSError:  # it says so itself
            continue
