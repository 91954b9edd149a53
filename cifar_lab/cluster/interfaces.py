"""The network interfaces of this machine (IPv4), and which of them leads to an address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab.cluster.place import PlaceError


@dataclass(frozen=True)
class Interface:
    """One address of an interface, "" where it has none; `up` also says that it has a carrier."""

    name: str
    address: str
    up: bool
    loopback: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.address or 'no address'}{'' if self.up else ', down'})"


def interfaces() -> list[Interface]:
    """All of this machine, second addresses of an interface included."""
    import psutil

    addresses = psutil.net_if_addrs()
    found = []
    for name, stats in psutil.net_if_stats().items():
        loopback = "loopback" in stats.flags.split(",")
        of_name = [a.address for a in addresses.get(name, []) if a.family == socket.AF_INET]
        found += [Interface(name, address, stats.isup, loopback) for address in of_name or [""]]
    return found


def named_interface(variable: str, names: str, *, found: Sequence[Interface], alone: bool) -> Interface:
    """The first that `names` (comma-separated) of an environment variable lists.

    Raises PlaceError where one does not exist, is down, has no address or, unless `alone`, leads nowhere.
    """
    chosen = []
    for name in filter(None, names.split(",")):
        usable = [interface for interface in found if interface.name == name]
        there = "here are " + ", ".join(str(i) for i in found if i.address and (alone or not i.loopback))
        way_out = f"unset {variable}, or choose one that leads to the other nodes; {there}"
        if not usable:
            raise PlaceError(f"{variable}={names}: there is no interface {name}: {way_out}")
        interface = max(usable, key=lambda i: (i.up, i.address != ""))
        if not interface.up:
            raise PlaceError(f"{variable}={names}: {name} is down: {way_out}")
        if not interface.address:
            raise PlaceError(f"{variable}={names}: {name} has no IPv4 address: {way_out}")
        if interface.loopback and not alone:
            raise PlaceError(f"{variable}={names}: {name} is the loopback, which leads to no other node: {way_out}")
        chosen.append(interface)
    if not chosen:
        raise PlaceError(f"{variable}={names} names no interface: unset it")
    return chosen[0]


def interface_towards(address: str) -> Interface:
    """The interface by which packets to `address` leave. Raises OSError where no route leads there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing
        source = probe.getsockname()[0]
    return interface_of(source)


def interface_of(address: str) -> Interface:
    """The interface that carries `address` of this machine."""
    for interface in interfaces():
        if interface.address == address:
            return interface
    return Interface("", address, up=True, loopback=address.startswith("127."))


def resolve(host: str, seconds: float) -> str:
    """The IPv4 address of a name. Raises OSError, also when no answer came in time, for which there is no option."""
    answer: list[str | OSError] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])  # type: ignore[arg-type]
        except OSError as error:
            answer.append(error)
        except UnicodeError:
            answer.append(OSError(f"{host!r} is no host name"))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    if not answer:
        raise TimeoutError(f"the name {host} was not looked up within {seconds:.0f} s")
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]
