"""The network interfaces of this machine (IPv4), and which of them leads to an address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import TypeVar

from cifar_lab.cluster.place import PlaceError

T = TypeVar("T")


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


def chosen_interface(environ: Mapping[str, str], *, alone: bool) -> Interface | None:
    """The one that the user named with GLOO_SOCKET_IFNAME, the first of several.

    Raises PlaceError where one does not exist, is down, has no address or, unless `alone`, leads nowhere.
    """
    names = environ.get("GLOO_SOCKET_IFNAME", "")
    found = interfaces() if names else []
    chosen = []
    for name in filter(None, names.split(",")):
        usable = [interface for interface in found if interface.name == name]
        best = max(usable, key=lambda i: (i.up, i.address != ""), default=None)
        if best is None:
            problem = f"there is no interface {name}"
        elif not best.up:
            problem = f"{name} is down"
        elif not best.address:
            problem = f"{name} has no IPv4 address"
        elif best.loopback and not alone:
            problem = f"{name} is the loopback, which leads to no other node"
        else:
            chosen.append(best)
            continue
        there = ", ".join(str(i) for i in found if i.address and (alone or not i.loopback))
        way_out = f"unset it, or choose one that leads to the other nodes; here are {there}"
        raise PlaceError(f"GLOO_SOCKET_IFNAME={names}: {problem}: {way_out}")
    return chosen[0] if chosen else None


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

    def ask() -> str:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])

    try:
        return within(seconds, ask)
    except TimeoutError:
        raise OSError(f"the name {host} was not looked up within {seconds:.0f} s") from None
    except UnicodeError:
        raise OSError(f"{host!r} is no host name") from None


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises; TimeoutError where it takes longer, in a thread that is left to itself."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except FutureTimeoutError:
        raise TimeoutError from None  # another class until Python 3.11
