"""Bytes on one device under each strategy, part by part.

Weights, gradients, moments and averages are fp32 under every strategy (bf16 means autocast). What ZeRO keeps was read
in DeepSpeed 0.19.8 and measured by benchmarks/plan_memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import GIB

STRATEGIES = ("single", "ddp", "zero1", "zero2", "zero3", "zero3_offload")
FP32, BF16 = 4, 2

# Elements, as cifar_lab/runtime/zero_config.py sets them (tests/planning/test_memory.py compares).
REDUCE_BUCKET = 50_000_000
PREFETCH_BUCKET = 50_000_000
PERSISTENCE_THRESHOLD = 100_000

# Assumed, not measured here: context and library workspaces of a CUDA process, and the buffers of NCCL.
CUDA_CONTEXT = int(0.8 * GIB)
NCCL_BUFFERS = int(0.4 * GIB)
# Part of what comes and goes in a step that the allocator cannot give out again.
FRAGMENTATION = {"cuda": 0.06, "cpu": 0.02}


@dataclass(frozen=True)
class Pictures:
    """Sizes of what the streams keep on the device: `num` pictures in all splits, `source` pixels a side."""

    num: int
    source: int
    image_size: int
    eval_batch: int
    has_validation: bool


@dataclass(frozen=True)
class Training:
    """What of a recipe and its layout decides on memory; `moments` are fp32 copies that the optimizer keeps."""

    precision: str
    moments: int
    has_ema: bool
    accumulates: bool
    checkpointing: bool


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a training step; `evaluation` is the peak of a validation instead.

    `gradients` are those there at the peak: without DDP they appear while activations go. `host` is what offloading
    keeps in the memory of the machine for this process.
    """

    parameters: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    data: int
    workspace: int
    evaluation: int
    host: int

    @property
    def state(self) -> int:
        """What is there all the time."""
        return self.parameters + self.optimizer + self.ema + self.data + self.workspace

    @property
    def training(self) -> int:
        """Peak of a training step."""
        return self.state + self.gradients + self.activations

    @property
    def total(self) -> int:
        """The largest of training and evaluation."""
        return max(self.training, self.state + self.evaluation)


def memory(
    footprint: Footprint,
    training: Training,
    pictures: Pictures,
    *,
    strategy: str,
    world_size: int,
    micro_batch: int,
    device: str = "cuda",
) -> Memory:
    """The plan for one device of `world_size`; `device` is "cuda" or "cpu"."""
    state = _state(footprint, training, strategy, world_size)
    one_pass = footprint.passes["checkpointed" if training.checkpointing else "plain"]
    activations = one_pass.activations.at(micro_batch)
    at_peak = activations + state.gradients
    if strategy == "single" and not training.accumulates:
        at_peak = one_pass.with_gradients.at(micro_batch)
    # Moments of a step: the backward pass, and the optimizer, when activations are gone.
    peak = max(at_peak, state.gradients_at_step)
    evaluation = footprint.evaluation.at(pictures.eval_batch) if pictures.has_validation else 0
    context = CUDA_CONTEXT + (NCCL_BUFFERS if world_size > 1 else 0) if device == "cuda" else 0
    return Memory(
        parameters=state.parameters + footprint.buffer_bytes,
        gradients=peak - min(activations, peak),
        optimizer=state.optimizer,
        ema=state.ema,
        activations=min(activations, peak),
        data=_data(pictures, micro_batch, device),
        workspace=context + state.buffers + round(FRAGMENTATION[device] * peak),
        evaluation=evaluation + (state.gradients if strategy == "ddp" else 0),
        host=state.host,
    )


@dataclass(frozen=True)
class _State:
    parameters: int
    gradients: int
    gradients_at_step: int
    optimizer: int
    ema: int
    buffers: int = 0
    host: int = 0


def _state(footprint: Footprint, training: Training, strategy: str, world_size: int) -> _State:
    whole = FP32 * footprint.num_trainable
    frozen = FP32 * footprint.num_parameters - whole
    moments, ema = training.moments * whole, whole if training.has_ema else 0
    if strategy in ("single", "ddp"):
        # DDP's buckets are the gradients and stay between steps; torch makes both as large as the parameters.
        return _State(frozen + whole, whole, whole, moments, ema and ema + footprint.buffer_bytes)
    part = -(-whole // world_size)
    shares = {"optimizer": moments // world_size, "ema": -(-ema // world_size)}
    bucket = _bucket_bytes(footprint, training)
    if strategy == "zero1":
        # The flat weights, this process's fp32 copy of its part, whole gradients until the step flattens its part.
        return _State(frozen + whole + part, whole, whole + part, buffers=bucket, **shares)
    if strategy == "zero2":
        return _State(frozen + whole + part, part, 2 * part, buffers=bucket, **shares)
    persistent = FP32 * footprint.small
    gathered = _gathered(footprint, training)
    if strategy == "zero3":
        return _State(frozen + part + persistent, part, 2 * part, buffers=bucket + gathered, **shares)
    # Gradients and weights travel: what stays on the device is what is gathered, and the bucket.
    host = 3 * part + sum(shares.values())
    return _State(frozen + persistent, 0, 0, 0, 0, buffers=bucket + gathered, host=host)


def _bucket_bytes(footprint: Footprint, training: Training) -> int:
    """DeepSpeed's reduce bucket: one in each type that gradients travel in."""
    elements = min(REDUCE_BUCKET, footprint.num_trainable)
    return elements * (FP32 + (BF16 if training.precision == "bf16" else 0))


def _gathered(footprint: Footprint, training: Training) -> int:
    """Weights that ZeRO-3 holds gathered: all of them, up to its reuse distance of 1e9 elements (DeepSpeed's default).

    Under bf16 they are gathered as bf16, which stands in for the casts that `activations` already has.
    """
    if training.precision == "bf16":
        return BF16 * min(PREFETCH_BUCKET, footprint.num_trainable)
    return FP32 * footprint.num_trainable


def _data(pictures: Pictures, micro_batch: int, device: str) -> int:
    """The uint8 data set, and the float buffers of the training and the evaluation stream."""
    dataset = pictures.num * 3 * pictures.source**2
    streams = _stream(pictures, micro_batch, device)
    if pictures.has_validation:
        streams += _stream(pictures, pictures.eval_batch, device)
    return dataset + streams


def _stream(pictures: Pictures, batch: int, device: str) -> int:
    images = batch * 3 * pictures.image_size**2 * FP32
    if device == "cpu":
        return images  # scratch is a chunk that fits the cache
    source = batch * 3 * pictures.source**2
    resized = pictures.image_size != pictures.source
    lines = batch * 3 * pictures.image_size * pictures.source * FP32 if resized else 0
    return images + lines + (FP32 + 4) * source  # float scratch, and uint8 crops, padded ones and windows
