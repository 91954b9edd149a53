"""The network interfaces of this machine (Linux, IPv4), and which of them leads to an address."""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab.cluster.place import PlaceError

# linux/sockios.h and linux/if.h
SIOCGIFCONF, SIOCGIFFLAGS = 0x8912, 0x8913
UP, LOOPBACK, RUNNING = 0x1, 0x8, 0x40
MAX_ADDRESSES = 256


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
    """All of this machine, empty where the system is not Linux."""
    if sys.platform != "linux":
        return []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        addresses = _addresses(probe)
        known = {name for name, _ in addresses}
        addresses += [(name, "") for _, name in socket.if_nameindex() if name not in known]
        found = []
        for name, address in addresses:
            flags = _flags(probe, name)
            up = flags & UP != 0 and flags & RUNNING != 0
            found.append(Interface(name, address, up, flags & LOOPBACK != 0))
    return found


def _addresses(probe: socket.socket) -> list[tuple[str, str]]:
    """Name and address, second addresses of an interface included."""
    import fcntl

    size = 40 if struct.calcsize("P") == 8 else 32  # of struct ifreq
    buffer = array.array("B", bytes(size * MAX_ADDRESSES))
    answer = fcntl.ioctl(probe.fileno(), SIOCGIFCONF, struct.pack("iP", len(buffer), buffer.buffer_info()[0]))
    used = struct.unpack("iP", answer)[0]
    entries = [buffer[start : start + size].tobytes() for start in range(0, used, size)]
    return [(os.fsdecode(entry[:16].split(b"\0")[0]), socket.inet_ntoa(entry[20:24])) for entry in entries]


def _flags(probe: socket.socket, name: str) -> int:
    import fcntl

    try:
        answer = fcntl.ioctl(probe.fileno(), SIOCGIFFLAGS, struct.pack("40s", os.fsencode(name)[:15]))
    except OSError:  # it went away meanwhile
        return 0
    flags: int = struct.unpack("16xH22x", answer)[0]
    return flags


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
