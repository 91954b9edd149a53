"""Seconds of a step, an epoch and a run at a stated utilisation of the hardware."""

from __future__ import annotations

from dataclasses import dataclass

from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import LINKS, Gpu
from cifar_lab.planning.memory import FP32
from cifar_lab.planning.network import Topology, Traffic

# One forward pass; a backward pass is two; recomputing all of it is one more.
PASSES, PASSES_RECOMPUTING = 3, 4
BACKWARD = 2 / 3


@dataclass(frozen=True)
class Timing:
    """Of one optimizer step: FLOPs over all devices; seconds of computing, of the optimizer, of waiting for links."""

    flops: int
    compute: float
    optimizer: float
    exposed: float

    @property
    def step(self) -> float:
        """Seconds of one optimizer step."""
        return self.compute + self.optimizer + self.exposed


def timing(
    footprint: Footprint,
    gpu: Gpu,
    topology: Topology,
    traffic: Traffic,
    *,
    strategy: str,
    global_batch: int,
    precision: str,
    moments: int,
    has_ema: bool,
    checkpointing: bool,
    utilisation: float,
) -> Timing:
    """`utilisation` is the part of the peak rate that all executed FLOPs reach, those recomputed included."""
    flops = global_batch * footprint.flops_per_image * (PASSES_RECOMPUTING if checkpointing else PASSES)
    compute = flops / (topology.world_size * gpu.flops(precision) * utilisation)
    # Read and write weights, moments and averages, read gradients: bound by memory, not by FLOPs.
    elements = footprint.num_trainable / (1 if strategy in ("single", "ddp") else topology.world_size)
    optimizer = elements * FP32 * (3 + 2 * moments + (3 if has_ema else 0)) / gpu.bandwidth
    if strategy == "zero3_offload":
        # Gradients go to the host and weights come back; the host's memory is some 50 times slower than the device's.
        optimizer = 50 * optimizer + 2 * elements * FP32 / LINKS["pcie4"].payload
    return Timing(flops, compute, optimizer, exposed_seconds(traffic, compute))


def exposed_seconds(traffic: Traffic, compute: float) -> float:
    """Seconds of communication that the backward pass does not hide."""
    hidden = BACKWARD * compute if traffic.overlapped else 0.0
    return max(0.0, traffic.seconds - hidden)
