"""An address of this machine by which others could reach it, for tests of nodes that are all here."""

from __future__ import annotations

import pytest

from cifar_lab.cluster.interfaces import interfaces


def own_address() -> str:
    """The first that is not the loopback's; skips where there is none."""
    for interface in interfaces():
        if not interface.loopback:
            return interface.address
    pytest.skip("this machine has no network interface but the loopback")
