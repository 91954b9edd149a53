from __future__ import annotations

import pytest

from cifar_lab.cluster.interfaces import interfaces, named_interface, resolve
from cifar_lab.cluster.place import PlaceError


def test_interfaces_by_name() -> None:
    found = interfaces()
    assert any(i.name == "lo" and i.address == "127.0.0.1" and i.up and i.loopback for i in found)
    assert named_interface("X", "lo", found=found, alone=True).name == "lo"
    for names, alone, message in (
        ("ethx", True, "X=ethx: there is no interface ethx: unset X.*lo \\(127.0.0.1\\)"),
        ("lo", False, "lo is the loopback, which leads to no other node"),
        ("lo,ethx", True, "there is no interface ethx"),
        (",", True, "names no interface"),
    ):
        with pytest.raises(PlaceError, match=message):
            named_interface("X", names, found=found, alone=alone)
    with pytest.raises(OSError, match=r"not known|resolution|No address"):
        resolve("no-such-host.invalid", 10)
