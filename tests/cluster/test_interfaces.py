from __future__ import annotations

import threading

import pytest

from cifar_lab.cluster.interfaces import chosen_interface, interfaces, resolve, within
from cifar_lab.errors import UsageError


def test_interfaces_by_name() -> None:
    assert any(i.name == "lo" and i.address == "127.0.0.1" and i.loopback for i in interfaces())
    assert chosen_interface({"GLOO_SOCKET_IFNAME": "lo"}, alone=True).name == "lo"
    assert chosen_interface({}, alone=True) is None
    for names, alone, message in (
        ("ethx", True, "GLOO_SOCKET_IFNAME=ethx: there is no interface ethx that .*unset it.*lo \\(127.0.0.1\\)"),
        ("lo", False, "there is no interface lo .* other nodes can reach: unset it"),
        ("lo,ethx", True, "there is no interface ethx"),
    ):
        with pytest.raises(UsageError, match=message):
            chosen_interface({"GLOO_SOCKET_IFNAME": names}, alone=alone)


def test_what_has_no_time_limit_gets_one() -> None:
    with pytest.raises(OSError, match=r"not known|resolution|No address"):
        resolve("no-such-host.invalid", 10)
    assert within(10, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(10, {}.popitem)
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.1, never.wait)
    never.set()
