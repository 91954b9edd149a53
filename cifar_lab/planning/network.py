"""Bytes that a process sends for one optimizer step, and how long they take."""

from __future__ import annotations

from dataclasses import dataclass

from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import Link
from cifar_lab.planning.memory import BF16, FP32

# Tensors that travel together: DDP's buckets of 25 MB, DeepSpeed's of 50 million elements.
DDP_BUCKET = 25 * 2**20


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
class Traffic:
    """Bytes sent by each process for one optimizer step, seconds alone on the links, and which link is the limit.

    `overlapped` says whether the strategy sends while the backward pass computes.
    """

    bytes: int
    seconds: float
    bottleneck: str | None
    overlapped: bool


def traffic(
    footprint: Footprint,
    strategy: str,
    topology: Topology,
    *,
    precision: str,
    accumulation_steps: int,
    compressed: bool = False,
) -> Traffic:
    """Ring collectives over all processes: an all-reduce sends 2 (n-1)/n of the tensor, a gather or scatter (n-1)/n.

    A ring crosses each node's link once in each direction with the same bytes that each process sends, so the slowest
    link on the way decides. `compressed`: DDP's gradients travel in 16 bits.
    """
    n = topology.world_size
    if n == 1:
        return Traffic(0, 0.0, None, overlapped=False)
    weights = FP32 * footprint.num_trainable
    # Under autocast DeepSpeed sends in bf16 what linear layers and convolutions own: nearly everything.
    sent = (BF16 if precision == "bf16" else FP32) * footprint.num_trainable
    part = (n - 1) / n
    if strategy == "ddp":
        gradients = BF16 * footprint.num_trainable if compressed else weights
        volume, calls = 2 * part * gradients, 2 * (-(-weights // DDP_BUCKET))
    elif strategy == "zero1":
        volume, calls = part * (sent + weights), 4
    elif strategy == "zero2":
        volume, calls = part * (accumulation_steps * sent + weights), 2 + 2 * accumulation_steps
    else:
        # Gathered for the forward and for the backward pass, and the gradients scattered, in each micro-batch.
        volume, calls = part * 3 * accumulation_steps * sent, 3 * accumulation_steps * footprint.num_tensors // 4
    links = [topology.inside] if topology.gpus > 1 else []
    links += [topology.between] if topology.between is not None and topology.nodes > 1 else []
    slowest = min(links, key=lambda link: link.payload)
    hops = calls * (n - 1) * max(link.latency for link in links)
    overlapped = strategy in ("ddp", "zero3", "zero3_offload")
    return Traffic(round(volume), volume / slowest.payload + hops, slowest.name, overlapped)
