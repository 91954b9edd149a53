"""What a plan knows of GPUs and links: nominal dense rates and one direction of a link, not checked on hardware."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from cifar_lab.errors import UserError

GIB = 2**30
# Part of a device's memory that a plan may fill.
FILL = 0.95


class PlanError(UserError):
    """A set-up that cannot be planned or does not fit; the message names the nearest that works."""

    exit_status = 2


@dataclass(frozen=True)
class Link:
    """Bytes a second in one direction, the part of them that arrives as payload, and seconds a message."""

    name: str
    bandwidth: float
    efficiency: float
    latency: float

    @property
    def payload(self) -> float:
        """Payload bytes a second."""
        return self.bandwidth * self.efficiency


@dataclass(frozen=True)
class Gpu:
    """One device: bytes of memory, FLOP/s, bytes a second of its memory, and the link to its neighbours in a node.

    `bf16` is None where the hardware has none (it is emulated; the plan then counts with `fp32`). `fp32` is without
    TF32, which the runtime does not switch on.
    """

    name: str
    memory: int
    bf16: float | None
    fp32: float
    bandwidth: float
    link: str

    def flops(self, precision: str) -> float:
        """Peak FLOP/s for matrix products at a recipe's `train.precision`."""
        return self.bf16 if precision == "bf16" and self.bf16 else self.fp32


@dataclass(frozen=True)
class Topology:
    """Processes of a node, nodes, and the links within and between them."""

    gpus: int
    nodes: int
    inside: Link
    between: Link | None

    @property
    def world_size(self) -> int:
        """All processes."""
        return self.gpus * self.nodes


@dataclass(frozen=True)
class Setup:
    """Where a recipe is to run; `utilisation` is the part of the peak rate that all executed FLOPs reach."""

    gpu: Gpu
    topology: Topology
    utilisation: float
    device: str = "cuda"

    @property
    def memory(self) -> int:
        """Bytes that a plan may use on one device."""
        return int(FILL * self.gpu.memory)

    def __str__(self) -> str:
        """As a user says it."""
        nodes = f"{self.topology.nodes} nodes of " if self.topology.nodes > 1 else ""
        return f"{nodes}{self.topology.gpus} x {self.gpu.name}"


def _gpu(name: str, gib: float, bf16: float | None, fp32: float, bandwidth: float, link: str) -> Gpu:
    """GiB as torch reports them, TFLOP/s and GB/s."""
    return Gpu(name, int(gib * GIB), bf16 and bf16 * 1e12, fp32 * 1e12, bandwidth * 1e9, link)


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("b200-180gb", 178.0, 2250, 80, 8000, "nvlink5"),
        _gpu("h200-141gb", 139.8, 989, 67, 4800, "nvlink4"),
        _gpu("h100-80gb", 79.1, 989, 67, 3350, "nvlink4"),
        _gpu("a100-80gb", 79.1, 312, 19.5, 2039, "nvlink3"),
        _gpu("a100-40gb", 39.4, 312, 19.5, 1555, "nvlink3"),
        _gpu("v100-32gb", 31.7, None, 15.7, 900, "nvlink2"),
        _gpu("v100-16gb", 15.8, None, 15.7, 900, "nvlink2"),
        _gpu("l40s-48gb", 44.4, 362, 91.6, 864, "pcie4"),
        _gpu("a10g-24gb", 22.0, 70, 31.2, 600, "pcie4"),
        _gpu("l4-24gb", 22.0, 121, 30.3, 300, "pcie4"),
        _gpu("rtx4090-24gb", 23.5, 165, 82.6, 1008, "pcie4"),
        _gpu("rtx3090-24gb", 23.6, 71, 35.6, 936, "pcie4"),
        _gpu("t4-16gb", 14.6, None, 8.1, 320, "pcie3"),
    )
}

# NCCL reaches about 0.8 of NVLink, PCIe and InfiniBand; of Ethernet, TCP leaves 1448 of 1538 bytes a frame.
_RDMA, _TCP = 0.8, 0.94


def _link(name: str, gigabytes: float, efficiency: float, microseconds: float) -> Link:
    return Link(name, gigabytes * 1e9, efficiency, microseconds * 1e-6)


LINKS: Mapping[str, Link] = {
    link.name: link
    for link in (
        _link("nvlink5", 900, _RDMA, 3),
        _link("nvlink4", 450, _RDMA, 3),
        _link("nvlink3", 300, _RDMA, 3),
        _link("nvlink2", 150, _RDMA, 3),
        _link("pcie4", 31.5, _RDMA, 5),
        _link("pcie3", 15.8, _RDMA, 5),
        _link("ib-8x400g", 400, _RDMA, 5),
        _link("ib-8x200g", 200, _RDMA, 5),
        _link("ib-400g", 50, _RDMA, 5),
        _link("ib-200g", 25, _RDMA, 5),
        _link("ib-100g", 12.5, _RDMA, 5),
        _link("eth-100g", 12.5, _TCP, 30),
        _link("eth-25g", 3.125, _TCP, 30),
        _link("eth-10g", 1.25, _TCP, 30),
        _link("eth-1g", 0.125, _TCP, 50),
    )
}
# Between nodes, where nothing else is said: one slow but common card a node.
DEFAULT_NODE_LINK = "ib-200g"

T = TypeVar("T")


def find_gpu(name: str) -> Gpu:
    """The GPU of that name. Raises PlanError."""
    return _find(name, GPUS, "--gpu", "GPU")


def find_link(name: str) -> Link:
    """The link of that name, or of so many Gbit/s a node over TCP. Raises PlanError."""
    try:
        gigabits = float(name)
    except ValueError:
        return _find(name, LINKS, "--link", "link (or a number of Gbit/s)")
    if not 0 < gigabits < float("inf"):
        raise PlanError(f"--link {name}: a link has more than 0 Gbit/s")
    return Link(f"{name} Gbit/s", gigabits / 8 * 1e9, _TCP, 50e-6)


def _find(name: str, table: Mapping[str, T], option: str, kind: str) -> T:
    key = name.lower().replace("_", "-").replace(" ", "-")
    if key in table:
        return table[key]
    near = difflib.get_close_matches(key, table, n=2, cutoff=0.4)
    near = near or [known for known in table if known.startswith(key[:3])]
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(table)}"
    raise PlanError(f"{option} {name}: there is no such {kind}: {hint}")
