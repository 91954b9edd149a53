"""The network of a test cluster: a namespace a node, all on one bridge, everything named after one number.

Run as a program this is the guard of a cluster: it waits for the end of its standard input, however the process that
started the cluster ended, and takes processes and network away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# 10.78.0.0/24 to 10.177.255.0/24.
NUM_NETWORKS = 25_600
PID_FILES = ("slurmctld.pid", "munge/pid")


class NetworkError(Exception):
    """What `ip` refused."""


@dataclass(frozen=True)
class Network:
    """Names and addresses that belong to one number; nodes count from 1, the controller is 254."""

    number: int

    @classmethod
    def take(cls) -> Network:
        """One that no other cluster of this machine uses; its bridge is made, which is what takes it."""
        problem = ""
        for offset in range(100):
            network = cls((os.getpid() + offset) % NUM_NETWORKS)
            try:
                _ip("link", "add", network.bridge, "type", "bridge")
            except NetworkError as error:
                problem = str(error)
            else:
                return network
        raise NetworkError(problem)

    @property
    def bridge(self) -> str:
        return f"lab{self.number}"

    def address(self, host: int) -> str:
        return f"10.{78 + self.number // 256}.{self.number % 256}.{host}"

    def link(self, node: int) -> str:
        """The node's cable, on the side of the bridge."""
        return f"lab{self.number}-{node}"

    def space(self, node: int) -> str:
        """The node's network namespace, where the cable is eth0."""
        return f"lab{self.number}-node{node}"

    def connect(self, num_nodes: int) -> None:
        """Plug in the controller and all nodes."""
        # Without this, what is meant for a missing node would leave by the default route.
        _ip("route", "add", "unreachable", f"{self.address(0)}/24", "metric", "4000")
        _ip("address", "add", f"{self.address(254)}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for node in range(1, num_nodes + 1):
            space, link = self.space(node), self.link(node)
            _ip("netns", "add", space)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", link, "master", self.bridge, "up")
            _ip("-n", space, "address", "add", f"{self.address(node)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", space, "link", "set", device, "up")

    def set_link(self, node: int, *, up: bool) -> None:
        """Pull the node's cable, or plug it in again: the node itself sees no error, only silence."""
        _ip("link", "set", self.link(node), "up" if up else "down")

    def take_away(self) -> None:
        """End what runs on the nodes, then remove the network; what is missing already is passed over."""
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split()
        spaces = [name for name in listed if name.startswith(f"{self.bridge}-")]
        for space in spaces:
            # Until there is none: what is killed may have started another meanwhile.
            while pids := subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout.split():
                kill(pids)
        remains = [["netns", "delete", space] for space in spaces]
        remains += [["link", "delete", self.link(node)] for node in range(1, len(spaces) + 1)]
        remains += [["route", "delete", "unreachable", f"{self.address(0)}/24"], ["link", "delete", self.bridge]]
        for command in remains:
            subprocess.run(["ip", *command], capture_output=True)


def kill(pids: Iterable[str]) -> None:
    for pid in pids:
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    time.sleep(0.05)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def guard(number: int, folder: Path) -> None:
    """Wait for the owner's end, then leave nothing of the cluster in `folder`."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    sys.stdin.read()
    Network(number).take_away()
    files = [folder / name for name in PID_FILES]
    kill(file.read_text().strip() for file in files if file.exists())


if __name__ == "__main__":
    guard(int(sys.argv[1]), Path(sys.argv[2]))
