"""Nodes of a job, played by threads of this machine that talk over its own address."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from support.own_address import own_address
from torch.distributed import TCPStore

from cifar_lab.cluster.interfaces import Interface, interface_towards
from cifar_lab.cluster.links import free_port
from cifar_lab.cluster.meeting import Meeting, MeetingError, Offer, meet
from cifar_lab.cluster.meeting.channel import Channel
from cifar_lab.cluster.place import Node, PlaceError


@pytest.fixture
def address() -> str:
    return own_address()


@pytest.fixture
def nodes(address: str) -> Callable[..., list[Node]]:
    def make(number: int = 3, port: int | None = None) -> list[Node]:
        port = port or free_port(0)
        hosts = tuple(f"host{rank}" for rank in range(number))
        return [Node(number, rank, hosts[rank], address, port, hosts, "token") for rank in range(number)]

    return make


def gather(nodes: list[Node], offers: list[Offer], seconds: float = 5.0) -> list[Meeting | Exception]:
    """What comes of a meeting of these nodes, each in a thread."""

    def one(node: Node, offer: Offer) -> Meeting | Exception:
        try:
            return meet(node, offer, seconds)
        except (MeetingError, PlaceError) as error:
            return error

    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(one, nodes, offers))


def test_three_meet_and_leave_the_port_to_the_launcher(nodes, address) -> None:
    made = nodes()
    met = gather(made, [Offer(None, ["same"], notes=(rank,)) for rank in range(3)])
    assert all(isinstance(one, Meeting) for one in met), met
    for one in met:
        assert [(card.rank, card.host, card.notes) for card in one.cards] == [
            (rank, f"host{rank}", [rank]) for rank in range(3)
        ]
        assert one.master_addr == address
        assert one.me.interface == interface_towards(address).name
        assert abs(one.skews["host1"]) < 5
    TCPStore("127.0.0.1", made[0].master_port, 1, is_master=True)


def test_one_that_does_not_come_is_named(nodes) -> None:
    begun = time.monotonic()
    found = gather(nodes()[:2], [Offer(None, [])] * 2, seconds=2)
    assert 1.5 < time.monotonic() - begun < 10
    for error in found:  # the one that came is told too
        assert isinstance(error, MeetingError)
        assert error.exit_status == 75
        assert "node 2 (host2) did not come to port" in str(error)
        assert "host1" not in str(error)


def test_node_0_that_is_not_there_is_named(nodes) -> None:
    made = nodes()
    (error,) = gather(made[1:2], [Offer(None, [])], seconds=1)
    assert isinstance(error, MeetingError)
    assert error.exit_status == 75
    for word in ("node 1 (host1) cannot reach node 0 (host0)", made[0].master_addr, f"port {made[0].master_port}"):
        assert word in str(error)
    assert "Connection refused" in str(error)


def test_a_problem_of_one_is_told_to_all_at_once(nodes) -> None:
    begun = time.monotonic()
    found = gather(nodes(), [Offer(None, []), Offer(None, [], problem="eth7 is down"), Offer(None, [])], seconds=30)
    assert time.monotonic() - begun < 10
    for error in found:
        assert isinstance(error, MeetingError)
        assert (str(error), error.exit_status, error.common) == ("node 1 (host1): eth7 is down", 2, False)
    found = gather(nodes(), [Offer(None, [], problem="bad recipe")] * 3)
    assert all(isinstance(error, MeetingError) and error.common for error in found)


def test_different_arguments_are_refused(nodes) -> None:
    for error in gather(nodes(2), [Offer(None, ["seed=0"]), Offer(None, ["seed=1"])]):
        assert isinstance(error, MeetingError)
        assert error.exit_status == 2
        assert "seed=0 on host0, seed=1 on host1" in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 1, "host": "twin"}, "both say that they are node 1: give each its NODE_RANK"),
        ({"num_nodes": 4}, "host2 says that there are 4 nodes, host0 that there are 3"),
    ],
    ids=["rank", "number"],
)
def test_a_wrong_rank_or_number_is_refused(nodes, monkeypatch, change, message) -> None:
    monkeypatch.setattr("cifar_lab.cluster.meeting.hosting.PROBLEM_SECONDS", 2.0)
    made = nodes(3)
    made[2] = replace(made[2], **change)
    begun = time.monotonic()
    found = gather(made, [Offer(None, [])] * 3, seconds=30)
    assert time.monotonic() - begun < 20
    assert all(isinstance(error, MeetingError) and error.exit_status == 2 for error in found)
    assert sum(message in str(error) for error in found) == 3


def test_strangers_do_not_disturb(nodes) -> None:
    """A scanner of ports, another job, and a node that lost its connection and came again."""
    made = nodes(2)
    with ThreadPoolExecutor(3) as pool:
        hosting = pool.submit(meet, made[0], Offer(None, []), 20)
        time.sleep(0.3)
        address = (made[0].master_addr, made[0].master_port)
        with socket.create_connection(address) as scanner, socket.create_connection(address) as babbler:
            babbler.sendall(b"GET / HTTP/1.1\r\n\r\n")
            stranger = Node(2, 1, "stranger", *address, (), "another job")
            error = pool.submit(gather, [stranger], [Offer(None, [])], 1).result()[0]
            assert "another job listens there" in str(error)
            assert pool.submit(meet, made[1], Offer(None, []), 20).result().cards[1].host == "host1"
            assert hosting.result().cards[0].host == "host0"
            scanner.close()


def test_a_port_in_use_is_named(nodes) -> None:
    with socket.create_server(("", 0)) as taken:
        made = nodes(2, port=taken.getsockname()[1])
        here, there = gather(made, [Offer(None, [])] * 2, seconds=2)
        assert (here.exit_status, there.exit_status) == (75, 75)
        assert f"port {made[0].master_port} of host0 is in use by another program" in str(here)
        assert "something else than node 0 listens there" in str(there)


@pytest.mark.parametrize("interface", [("docker0", "127.0.0.1"), ("eth9", "192.0.2.77")], ids=["twin", "nowhere"])
def test_a_link_that_leads_elsewhere_is_named(nodes, monkeypatch, interface) -> None:
    """Each node announces an address at which another machine answers, or nobody."""
    monkeypatch.setattr("cifar_lab.cluster.meeting.mesh.REACH_SECONDS", 0.5)
    name, announced = interface
    wrong = Offer(Interface(name, announced, up=True, loopback=False), [])
    made = nodes(2)
    if name == "docker0":  # on a real node the own listener of another port number would answer, or nobody
        monkeypatch.setattr("cifar_lab.cluster.meeting.mesh.Answerer._answer", _answer_as_node_9)
    for error in gather(made, [Offer(None, []), wrong]):
        assert isinstance(error, MeetingError)
        assert error.exit_status == 75
        assert f"cannot reach node 1 (host1) at {announced} ({name}): " in str(error)
        assert "GLOO_SOCKET_IFNAME" in str(error)


def _answer_as_node_9(self: Any, connection: socket.socket) -> None:
    with connection:
        channel = Channel(connection)
        channel.receive(5)
        channel.send(token="token", rank=9)
