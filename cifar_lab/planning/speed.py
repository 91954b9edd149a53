"""Bytes that a process sends for one optimizer step, and seconds of the step at a stated utilisation."""

from dataclasses import dataclass

from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import LINKS, Setup
from cifar_lab.planning.memory import BF16, FP32, Layout, num_moments
from cifar_lab.recipe import Recipe

# Tensors that travel together: DDP's buckets of 25 MB, DeepSpeed's of 50 million elements.
DDP_BUCKET = 25 * 2**20
# One forward pass; a backward pass is two; recomputing all of it is one more.
PASSES, PASSES_RECOMPUTING = 3, 4
BACKWARD = 2 / 3


@dataclass(frozen=True)
class Traffic:
    """Bytes sent by each process for one optimizer step, seconds alone on the links, and which link is the limit.

    `overlapped` says whether the strategy sends while the backward pass computes.
    """

    bytes: int
    seconds: float
    bottleneck: str | None
    overlapped: bool


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


def traffic(footprint: Footprint, recipe: Recipe, layout: Layout, setup: Setup) -> Traffic:
    """Ring collectives over all processes: an all-reduce sends 2 (n-1)/n of the tensor, a gather or scatter (n-1)/n.

    A ring crosses each node's link once in each direction with the same bytes that each process sends, so the slowest
    link on the way decides.
    """
    n = setup.world_size
    if n == 1:
        return Traffic(0, 0.0, None, overlapped=False)
    weights = FP32 * footprint.num_trainable
    # Under autocast DeepSpeed sends in bf16 what linear layers and convolutions own: nearly everything.
    sent = (BF16 if recipe.train.precision == "bf16" else FP32) * footprint.num_trainable
    part, times = (n - 1) / n, layout.accumulation_steps(recipe)
    if layout.strategy == "ddp":
        compressed = recipe.train.grad_compression is not None  # gradients travel in 16 bits
        gradients = BF16 * footprint.num_trainable if compressed else weights
        volume, calls = 2 * part * gradients, 2 * (-(-weights // DDP_BUCKET))
    elif layout.strategy == "zero1":
        volume, calls = part * (sent + weights), 4
    elif layout.strategy == "zero2":
        volume, calls = part * (times * sent + weights), 2 + 2 * times
    elif layout.strategy == "fsdp2":
        volume, calls = part * 3 * times * weights, 3 * times * footprint.num_groups
    else:
        # Gathered for the forward and for the backward pass, and the gradients scattered, in each micro-batch.
        volume, calls = part * 3 * times * sent, 3 * times * footprint.num_tensors // 4
    links = [setup.inside] if setup.gpus > 1 else []
    links += [setup.between] if setup.nodes > 1 else []
    slowest = min(links, key=lambda link: link.payload)
    hops = calls * (n - 1) * max(link.microseconds * 1e-6 for link in links)
    overlapped = layout.strategy in ("ddp", "zero3", "fsdp2", "zero3_offload")
    return Traffic(round(volume), volume / slowest.payload + hops, slowest.name, overlapped)


def timing(footprint: Footprint, recipe: Recipe, layout: Layout, setup: Setup, traffic: Traffic) -> Timing:
    """Executed FLOPs, those recomputed included, at the set-up's part of the peak rate; what is not hidden besides."""
    passes = PASSES_RECOMPUTING if layout.checkpointing else PASSES
    flops = recipe.train.global_batch * footprint.flops_per_image * passes
    rate = "tf32" if recipe.train.tf32 and recipe.train.precision == "fp32" else recipe.train.precision
    compute = flops / (layout.world_size * setup.gpu.flops(rate) * setup.utilisation)
    # Read and write weights, moments and averages, read gradients: bound by memory, not by FLOPs.
    elements = footprint.num_trainable / (1 if layout.strategy in ("single", "ddp") else layout.world_size)
    copies = 3 + 2 * num_moments(recipe) + (3 if recipe.train.ema_decay is not None else 0)
    optimizer = elements * FP32 * copies / (setup.gpu.bandwidth * 1e9)
    if layout.strategy == "zero3_offload":
        # Gradients go to the host and weights come back; the host's memory is some 50 times slower than the device's.
        optimizer = 50 * optimizer + 2 * elements * FP32 / LINKS["pcie4"].payload
    return Timing(flops, compute, optimizer, exposed_seconds(traffic, compute))


def exposed_seconds(traffic: Traffic, compute: float) -> float:
    """Seconds of communication that the backward pass does not hide."""
    hidden = BACKWARD * compute if traffic.overlapped else 0.0
    return max(0.0, traffic.seconds - hidden)
