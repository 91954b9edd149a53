"""The network interfaces of this machine (IPv4), and which of them leads to an address."""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import TypeVar

from cifar_lab.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Interface:
    """One address of an interface."""

    name: str
    address: str
    loopback: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def interfaces() -> list[Interface]:
    """Those of this machine that are up and have an address, second addresses of an interface included."""
    import psutil

    addresses = psutil.net_if_addrs()
    return [
        Interface(name, address.address, "loopback" in stats.flags.split(","))
        for name, stats in psutil.net_if_stats().items()
        for address in addresses.get(name, [])
        if stats.isup and address.family == socket.AF_INET
    ]


def chosen_interface(environ: Mapping[str, str], *, alone: bool) -> Interface | None:
    """The one that the user named with GLOO_SOCKET_IFNAME, the first of several.

    Raises UsageError where one does not exist, is down, has no address or, unless `alone`, leads nowhere.
    """
    names = [name for name in environ.get("GLOO_SOCKET_IFNAME", "").split(",") if name]
    usable = [interface for interface in interfaces() if alone or not interface.loopback] if names else []
    kind = "that is up and has an IPv4 address" + ("" if alone else " that other nodes can reach")
    for name in names:
        if name not in [interface.name for interface in usable]:
            way_out = f"unset it, or choose one of {', '.join(map(str, usable))}"
            raise UsageError(f"GLOO_SOCKET_IFNAME={','.join(names)}: there is no interface {name} {kind}: {way_out}")
    return next((interface for interface in usable if interface.name == names[0]), None)


def interface_towards(address: str) -> Interface:
    """The interface by which packets to `address` leave. Raises OSError where no route leads there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing
        source = probe.getsockname()[0]
    return interface_of(source)


def interface_of(address: str) -> Interface:
    """The interface that carries `address` of this machine, also while its cable is out."""
    import psutil

    names = (name for name, found in psutil.net_if_addrs().items() if address in [each.address for each in found])
    return Interface(next(names, ""), address)


def resolve(host: str, seconds: float) -> str:
    """The IPv4 address of a name. Raises OSError, also when no answer came in time, for which there is no option."""

    def ask() -> str:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])

    try:
        return within(seconds, ask)
    except TimeoutError:
        raise OSError(f"the name {host} was not looked up within {seconds:.0f} s") from None
    except UnicodeError:
        raise OSError(f"{host!r} is not a host name") from None


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises; TimeoutError where it takes longer, in a thread that is left to itself."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result(seconds)
    except FutureTimeoutError:
        raise TimeoutError from None  # another class until Python 3.11
    finally:
        pool.shutdown(wait=False)
