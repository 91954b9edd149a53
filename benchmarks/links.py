"""Two network namespaces that stand for two nodes, and the link between them; needs root and iproute2."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_ADDRESS = "10.78.0.1"


@contextmanager
def two_nodes() -> Iterator[list[str]]:
    """Names of two network namespaces with addresses 10.78.0.1 and 10.78.0.2 on their eth0."""
    names = [f"node{os.getpid()}-{i}" for i in (1, 2)]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for i, name in enumerate(names, 1):
            run("ip", "-n", name, "addr", "add", f"10.78.0.{i}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def limit(rate: float, namespace: str | None = None) -> None:
    """Let eth0 (of `namespace`, else of this process's own) send `rate` Mbit/s."""
    inside = [] if namespace is None else ["-n", namespace]
    bucket = ["tbf", "rate", f"{rate:g}mbit", "burst", "128kb", "latency", "200ms"]
    run("tc", *inside, "qdisc", "replace", "dev", "eth0", "root", *bucket)


def environment_of(rank: int, port: int, address: str = FIRST_ADDRESS, interface: str = "eth0") -> dict[str, str]:
    """What process `rank` of two, with one thread each, is started with."""
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": interface,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def run(*command: str) -> None:
    """Run a command; its error message ends the benchmark."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
