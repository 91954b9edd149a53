"""Where a recipe is to run: GPUs and links of hardware.yaml, and how many of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from cifar_lab.errors import UsageError
from cifar_lab.recipe.errors import did_you_mean

T = TypeVar("T")
GIB = 2**30
# Part of a device's memory that a plan may fill.
FILL = 0.95
# Of the peak rate, over all FLOPs that are executed; not measured: large transformers on such GPUs reach 0.3 to 0.5.
UTILISATION = 0.4
# Between nodes, where nothing else is said: one slow but common card a node.
DEFAULT_NODE_LINK = "ib-200g"


@dataclass(frozen=True)
class Link:
    """GB/s in one direction, the part of them that arrives as payload, and microseconds a message."""

    name: str
    gigabytes: float
    efficiency: float
    microseconds: float

    @property
    def payload(self) -> float:
        """Payload bytes a second."""
        return self.gigabytes * 1e9 * self.efficiency


@dataclass(frozen=True)
class Gpu:
    """One device as hardware.yaml describes it; where a rate is missing the plan counts with fp32's."""

    name: str
    gib: float
    bf16: float | None
    fp32: float
    bandwidth: float
    link: str
    fp16: float | None = None
    tf32: float | None = None
    capability: Sequence[int] = (8, 0)

    @property
    def memory(self) -> int:
        """Bytes."""
        return int(self.gib * GIB)

    def flops(self, precision: str) -> float:
        """Peak FLOP/s for matrix products in a recipe's `train.precision`, or in "tf32"."""
        rates = {"bf16": self.bf16, "fp16": self.fp16 or self.bf16, "tf32": self.tf32}
        return (rates.get(precision) or self.fp32) * 1e12


_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
GPUS = {name: Gpu(name, **values) for name, values in _TABLE["gpus"].items()}
LINKS = {name: Link(name, **values) for name, values in _TABLE["links"].items()}


@dataclass(frozen=True)
class Setup:
    """GPUs of a node, nodes and the link between them; executed FLOPs reach the part `utilisation` of the peak rate."""

    gpu: Gpu
    gpus: int = 1
    nodes: int = 1
    between: Link = LINKS[DEFAULT_NODE_LINK]
    utilisation: float = UTILISATION
    device: str = "cuda"

    @property
    def inside(self) -> Link:
        """The link between GPUs of a node."""
        return LINKS[self.gpu.link]

    @property
    def world_size(self) -> int:
        """All processes."""
        return self.gpus * self.nodes

    @property
    def memory(self) -> int:
        """Bytes that a plan may use on one device."""
        return int(FILL * self.gpu.memory)

    def __str__(self) -> str:
        """As a user says it."""
        nodes = f"{self.nodes} nodes of " if self.nodes > 1 else ""
        return f"{nodes}{self.gpus} x {self.gpu.name}"


def find_gpu(name: str) -> Gpu:
    """The GPU of that name. Raises UsageError."""
    return _find(name, GPUS, f"--gpu {name}: there is no such GPU")


def find_link(name: str) -> Link:
    """The link of that name, or of so many Gbit/s a node over TCP. Raises UsageError."""
    try:
        gigabits = float(name)
    except ValueError:
        return _find(name, LINKS, f"--link {name}: there is no such link (or a number of Gbit/s)")
    if not 0 < gigabits < float("inf"):
        raise UsageError(f"--link {name}: a link has more than 0 Gbit/s")
    return Link(f"{name} Gbit/s", gigabits / 8, LINKS["eth-1g"].efficiency, LINKS["eth-1g"].microseconds)


def _find(name: str, table: dict[str, T], problem: str) -> T:
    key = name.lower().replace("_", "-").replace(" ", "-")
    if key not in table:
        known = ", ".join(table)
        raise UsageError(f"{problem}{did_you_mean(key, table) or f'; there are {known}'}")
    return table[key]
