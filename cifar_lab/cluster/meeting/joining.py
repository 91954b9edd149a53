"""The other nodes of a meeting: each finds node 0, tries its links, and hears the verdict."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict, replace

from cifar_lab.cluster.interfaces import interface_towards, interfaces, resolve
from cifar_lab.cluster.meeting.channel import Channel, reason
from cifar_lab.cluster.meeting.mesh import unreachable
from cifar_lab.cluster.meeting.terms import ANSWER_SECONDS, REACH_SECONDS, TRY_AGAIN, Card, Meeting, MeetingError, Offer
from cifar_lab.cluster.place import Node, PlaceError
from cifar_lab.errors import UserError


def join(node: Node, offer: Offer, port: int, seconds: float) -> Meeting:
    deadline, last = time.monotonic() + seconds, "no answer"
    address, way = node.master_addr, offer.interface
    while time.monotonic() < deadline:
        try:
            address = resolve(node.master_addr, 10)
            if address.startswith("127."):
                raise PlaceError(
                    f"MASTER_ADDR={node.master_addr} is {address} on {node.host}, which is {node.host} itself: set "
                    "MASTER_ADDR to an address of node 0 that the others reach"
                )
            way = offer.interface or interface_towards(address)
            with socket.create_connection((address, node.master_port), timeout=ANSWER_SECONDS) as connection:
                return _take_part(Channel(connection), node, replace(offer, interface=way).card(node, port), seconds)
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            last = reason(error)
            time.sleep(0.3)
    here = way or ", ".join(str(interface) for interface in interfaces() if not interface.loopback)
    where = address if address == node.master_addr else f"{node.master_addr} ({address})"
    raise MeetingError(
        [
            f"{node.name(node.rank)} cannot reach {node.name(0)} at {where}, port {node.master_port}, by {here}: "
            f"{last} within {seconds:.0f} s"
        ],
        TRY_AGAIN,
    )


def _take_part(channel: Channel, node: Node, me: Card, seconds: float) -> Meeting:
    channel.send(token=node.token, card=asdict(me))
    try:
        welcome = channel.receive(ANSWER_SECONDS)
    except (TimeoutError, ValueError) as error:
        raise ConnectionError("something else than node 0 listens there") from error
    if welcome.get("token") != node.token:
        raise ConnectionError("another job listens there")
    answer = channel.receive(seconds + ANSWER_SECONDS)
    if "cards" not in answer:
        raise MeetingError(answer["lines"], answer["status"], common=answer.get("common", False))
    cards = [Card(**card) for card in answer["cards"]]
    channel.send(unreachable=unreachable(me, cards, node.token))
    verdict = channel.receive(2 * REACH_SECONDS + 2 * ANSWER_SECONDS)
    if verdict["status"]:
        raise MeetingError(verdict["lines"], verdict["status"])
    return Meeting(cards, me, channel.socket.getpeername()[0], answer["skews"])
