"""Nodes of a job, played by threads of this machine that talk over its own address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from support.own_address import own_address
from torch.distributed import TCPStore

from cifar_lab.cluster import reach
from cifar_lab.cluster.interfaces import Interface, interface_towards
from cifar_lab.cluster.links import free_port
from cifar_lab.cluster.meeting import Meeting, meeting
from cifar_lab.cluster.place import Node
from cifar_lab.cluster.reach import MeetingError


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


def gather(
    nodes: list[Node],
    arguments: list[list[str]] | None = None,
    offers: list[dict[str, Any]] | None = None,
    seconds: float = 5,
) -> list[Meeting | MeetingError]:
    """What comes of a meeting of these nodes, each in a thread; those that met have told each other their ranks."""

    def one(node: Node, own: list[str], offer: dict[str, Any]) -> Meeting | MeetingError:
        try:
            with meeting(node, own, seconds=seconds, **offer) as met:
                assert met.gather("ranks", node.rank, 10) == list(range(node.num_nodes))
                return met
        except MeetingError as error:
            return error

    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(one, nodes, arguments or [[]] * len(nodes), offers or [{}] * len(nodes)))


def test_three_meet_and_leave_the_port_to_the_launcher(nodes, address) -> None:
    made = nodes()
    found = gather(made, [["same"]] * 3)
    assert all(isinstance(met, Meeting) for met in found), found
    for rank, met in enumerate(found):
        assert [(card.rank, card.host) for card in met.cards] == [(rank, f"host{rank}") for rank in range(3)]
        assert met.master_addr == address
        assert {card.interface for card in met.cards} == {interface_towards(address).name}
        assert {card.address for card in met.cards} == {address}
        assert met.me.rank == rank
    TCPStore("127.0.0.1", made[0].master_port, 1, is_master=True)


def test_one_that_does_not_come_is_named(nodes) -> None:
    for error in gather(nodes()[:2], seconds=2):  # the one that came is told too
        assert isinstance(error, MeetingError)
        assert error.exit_status == 75
        assert "node 2 (host2) did not connect to port" in str(error)
        assert "host1" not in str(error)


def test_node_0_that_is_not_there_is_named(nodes) -> None:
    made = nodes()
    (error,) = gather(made[1:2], seconds=1)
    assert isinstance(error, MeetingError)
    assert error.exit_status == 75
    for word in ("node 1 (host1) cannot reach node 0 (host0)", made[0].master_addr, f"port {made[0].master_port}"):
        assert word in str(error)
    assert "Connection refused" in str(error)


def test_a_name_of_node_0_that_is_each_nodes_own_is_refused(nodes) -> None:
    (error,) = gather([replace(nodes()[1], master_addr="127.0.1.1")])
    assert (error.exit_status, "which is host1 itself: set it to" in str(error)) == (2, True)


def test_problems_are_told_to_all(nodes) -> None:
    for error in gather(nodes(), offers=[{}, {"problem": "eth7 is down"}, {}]):
        assert isinstance(error, MeetingError)
        assert (error.lines, error.exit_status) == (["node 1 (host1): eth7 is down"], 2)
    for error in gather(nodes(), offers=[{"problem": "bad recipe"}] * 3):
        assert isinstance(error, MeetingError)
        assert (error.lines, error.exit_status) == (["bad recipe"], 2)


def test_different_arguments_are_refused(nodes) -> None:
    for error in gather(nodes(2), [["seed=0"], ["seed=1"]]):
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
def test_a_wrong_rank_or_number_is_refused(nodes, change, message) -> None:
    made = nodes(3)
    made[2] = replace(made[2], **change)
    for error in gather(made, seconds=4):
        assert isinstance(error, MeetingError)
        assert (error.exit_status, message in str(error)) == (2, True)


def test_one_node_more_than_node_0_knows_is_told(nodes) -> None:
    made = nodes(3)
    *found, error = gather([*made[:2], replace(made[2], rank=3, num_nodes=4), made[2]])
    del error
    assert "host2 says that there are 4 nodes, host0 that there are 3" in str(found[2])


def test_strangers_do_not_disturb(nodes) -> None:
    """A scanner of ports, one that babbles, and another job."""
    made = nodes(2)
    with ThreadPoolExecutor(2) as pool:
        hosting = pool.submit(gather, made[:1], seconds=30)
        address = (made[0].master_addr, made[0].master_port)
        while True:
            try:
                scanner = socket.create_connection(address)
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.1)
        with scanner, socket.create_connection(address) as babbler:
            babbler.sendall(b"GET / HTTP/1.1\r\n\r\n")
            (error,) = gather([Node(2, 1, "stranger", *address, (), "another-job")], seconds=1)
            assert "another job listens there" in str(error)
            (met,) = gather(made[1:], seconds=20)
            assert met.cards[1].host == "host1"
            assert isinstance(hosting.result()[0], Meeting)


def test_a_port_in_use_is_named(nodes, monkeypatch) -> None:
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("", 0)) as taken:  # one that keeps silent, for which a store waits without end
        made = nodes(2, port=taken.getsockname()[1])
        here, there = gather(made, seconds=2)
        assert (here.exit_status, there.exit_status) == (75, 75)
        assert f"port {made[0].master_port} of host0 is in use by another program" in str(here)
        assert "another program listens there" in str(there)


@pytest.mark.parametrize("interface", [("docker0", "127.0.0.1"), ("eth9", "192.0.2.77")], ids=["twin", "nowhere"])
def test_a_link_that_leads_elsewhere_is_named(nodes, monkeypatch, interface) -> None:
    """Node 1 announces an address at which another machine answers, or nobody."""
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 1.0)
    name, announced = interface
    wrong = {"interface": Interface(name, announced)}
    if name == "docker0":
        serve = reach.serve
        monkeypatch.setattr("cifar_lab.cluster.meeting.serve", lambda node: _as_node_9(node, serve(node)))
    for error in gather(nodes(2), offers=[{}, wrong]):
        assert isinstance(error, MeetingError)
        assert error.exit_status == 75
        assert f"cannot reach node 1 (host1) at {announced} ({name}): " in str(error)
        assert ("is another machine, seen from here" in str(error)) == (name == "docker0")
        assert "GLOO_SOCKET_IFNAME" in str(error)


def _as_node_9(node: Node, store: TCPStore) -> TCPStore:
    if node.rank == 1:
        store.set("who", f"{node.token} 9 .")
    return store
