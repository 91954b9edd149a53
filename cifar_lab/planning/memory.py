"""Bytes on one device under each strategy, part by part.

Weights, gradients, moments and averages are fp32 under every strategy (bf16 means autocast). What ZeRO keeps was read
in DeepSpeed 0.19.8, what FSDP2 keeps in PyTorch 2.14, and both measured by benchmarks/plan_memory.py.
"""

from dataclasses import dataclass

from cifar_lab.data.sizes import DataSizes
from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import GIB
from cifar_lab.recipe import Recipe

STRATEGIES = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload")
FP32, BF16 = 4, 2

# Elements, as cifar_lab/runtime/zero_config.py sets them (tests/planning/test_memory.py compares).
BUCKET = 10_000_000
LIVE_PARAMETERS = 50_000_000
PERSISTENCE_THRESHOLD = 100_000

# Assumed, not measured here: context and library workspaces of a CUDA process, and the buffers of NCCL.
CUDA_CONTEXT = int(0.8 * GIB)
NCCL_BUFFERS = int(0.4 * GIB)
# Part of what comes and goes in a step that the allocator cannot give out again.
FRAGMENTATION = {"cuda": 0.06, "cpu": 0.02}


@dataclass(frozen=True)
class Layout:
    """One way to run a recipe: what of it decides on the memory of each process; `device` is "cuda" or "cpu"."""

    strategy: str
    checkpointing: bool
    world_size: int
    micro_batch: int
    eval_batch: int
    device: str = "cuda"

    def accumulation_steps(self, recipe: Recipe) -> int:
        """Micro-batches of a process in one step."""
        return recipe.train.global_batch // self.world_size // self.micro_batch


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a training step; `evaluation` is the peak of an evaluation instead
    (of the test split at the end, where there is no validation).

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


def num_moments(recipe: Recipe) -> int:
    """fp32 copies of the parameters that the optimizer keeps."""
    if recipe.optim.name == "adamw":
        return 2
    return 1 if recipe.optim.momentum or recipe.optim.name == "muon" else 0


def checkpoint_bytes(recipe: Recipe, footprint: Footprint) -> int:
    """One checkpoint: weights and buffers, moments, and the moving average."""
    weights = FP32 * footprint.num_parameters + footprint.buffer_bytes
    moments = num_moments(recipe) * FP32 * footprint.num_trainable
    return weights + moments + (weights if recipe.train.ema_decay is not None else 0)


def memory(footprint: Footprint, recipe: Recipe, sizes: DataSizes, layout: Layout) -> Memory:
    """The plan for one device."""
    state = _state(footprint, recipe, layout)
    one_pass = footprint.passes["checkpointed" if layout.checkpointing else "plain"]
    activations = one_pass.activations.at(layout.micro_batch)
    kept = state.gradients if layout.accumulation_steps(recipe) > 1 else state.kept_gradients
    # Gradients that are not there yet appear while activations go; of a part of them, that part (an upper bound).
    appearing = (state.gradients - kept) / (FP32 * footprint.num_trainable)
    growing = round(appearing * (one_pass.with_gradients.at(layout.micro_batch) - activations))
    # The other moment: the optimizer, when activations are gone.
    peak = max(kept + activations + growing, state.gradients_at_step)
    context = CUDA_CONTEXT + (NCCL_BUFFERS if layout.world_size > 1 else 0) if layout.device == "cuda" else 0
    return Memory(
        parameters=state.parameters + footprint.buffer_bytes,
        gradients=peak - min(activations, peak),
        optimizer=state.optimizer,
        ema=state.ema,
        activations=min(activations, peak),
        data=_data(sizes, layout),
        workspace=context + state.buffers + round(FRAGMENTATION[layout.device] * peak),
        evaluation=footprint.evaluation.at(layout.eval_batch) + state.kept_gradients,
        host=state.host,
    )


@dataclass(frozen=True)
class _State:
    """`kept_gradients` are buffers that live between steps, `gradients` what a whole pass leaves."""

    parameters: int
    kept_gradients: int
    gradients: int
    gradients_at_step: int
    optimizer: int
    ema: int
    buffers: int = 0
    host: int = 0


def _state(footprint: Footprint, recipe: Recipe, layout: Layout) -> _State:
    strategy, world_size = layout.strategy, layout.world_size
    whole = FP32 * footprint.num_trainable
    frozen = FP32 * footprint.num_parameters - whole
    moments, ema = num_moments(recipe) * whole, whole if recipe.train.ema_decay is not None else 0
    if strategy in ("single", "ddp"):
        kept = whole if strategy == "ddp" else 0  # its buckets are the gradients
        return _State(frozen + whole, kept, whole, whole, moments, ema and ema + footprint.buffer_bytes)
    part = -(-whole // world_size)
    shares = {"optimizer": moments // world_size, "ema": -(-ema // world_size)}
    if strategy == "fsdp2":
        # The gradients of a part appear in the backward pass; of what is gathered all travels in fp32.
        return _State(-(-frozen // world_size) + part, 0, part, part, buffers=FP32 * footprint.gathered, **shares)
    bf16 = recipe.train.precision == "bf16"
    # DeepSpeed's reduce bucket: one in each type that gradients travel in.
    bucket = min(BUCKET, footprint.num_trainable) * (FP32 + (BF16 if bf16 else 0))
    if strategy in ("zero1", "zero2"):
        # The flat weights, and this process's fp32 copy of its part; the step flattens its part of the gradients.
        left = whole if strategy == "zero1" else part
        return _State(frozen + whole + part, 0, left, max(left, 2 * part), buffers=bucket, **shares)
    persistent = FP32 * footprint.small
    # Weights that ZeRO-3 holds gathered or on their way, in the type in which they travel.
    live = max(min(LIVE_PARAMETERS, footprint.num_trainable), footprint.largest)
    buffers = bucket + (BF16 if bf16 else FP32) * live
    if strategy == "zero3":
        return _State(frozen + part + persistent, part, part, 2 * part, buffers=buffers, **shares)
    # Gradients and weights travel: what stays on the device is what is gathered, and the bucket.
    return _State(frozen + persistent, 0, 0, 0, 0, 0, buffers=buffers, host=3 * part + sum(shares.values()))


def _data(sizes: DataSizes, layout: Layout) -> int:
    """The uint8 data set, and the float buffers of the training and the evaluation stream."""
    dataset = (sizes.num_train + sizes.num_val + sizes.num_test) * 3 * sizes.source_size**2
    return dataset + sum(_stream(sizes, batch, layout.device) for batch in (layout.micro_batch, layout.eval_batch))


def _stream(sizes: DataSizes, batch: int, device: str) -> int:
    images = batch * 3 * sizes.image_size**2 * FP32
    if device == "cpu":
        return images  # scratch is a chunk that fits the cache
    source = batch * 3 * sizes.source_size**2
    resized = sizes.image_size != sizes.source_size
    lines = batch * 3 * sizes.image_size * sizes.source_size * FP32 if resized else 0
    return images + lines + (FP32 + 4) * source  # float scratch, and uint8 crops, padded ones and windows
