"""The one table of options that a device or a strategy cannot do, with the nearest set-up that works."""

from collections.abc import Callable
from dataclasses import dataclass

from cifar_lab.files.shipped import config_file
from cifar_lab.recipe.schema import Recipe


@dataclass(frozen=True)
class Unsupported:
    """An option that does not work on a device ("cpu", "cuda"), under a strategy ("single", "ddp", "zero3", ...), or
    with several micro-batches a step (ACCUMULATION)."""

    option: str
    where: tuple[str, ...]
    uses: Callable[[Recipe], bool]
    reason: str
    instead: str


ACCUMULATION = "gradient accumulation"
ZERO = ("zero1", "zero2", "zero3", "zero1_offload", "zero2_offload", "zero3_offload")
SHARDED = (*ZERO, "fsdp2")

TABLE = (
    Unsupported(
        option="train.sync_batchnorm",
        where=("cpu",),
        uses=lambda recipe: recipe.train.sync_batchnorm,
        reason="torch's SyncBatchNorm refuses CPU tensors",
        instead="set it to false (statistics are then those of a micro-batch), or train on GPUs",
    ),
    Unsupported(
        option="train.compile",
        where=("zero3", "zero3_offload"),
        uses=lambda recipe: recipe.train.compile is not False,
        reason="weights are gathered around every layer, which breaks the compiled graph at each",
        instead=f"set it to false, or use {config_file('fsdp2')} or zero2.yaml",
    ),
    Unsupported(
        option="train.precision",
        where=ZERO,
        uses=lambda recipe: recipe.train.precision == "fp16",
        reason="DeepSpeed leaves a step that overflows before it lowers the loss scale",
        instead=f"set it to bf16 or fp32, or use {config_file('fsdp2')} or ddp.yaml",
    ),
    Unsupported(
        option="train.compile",
        where=("cpu", "mps", "xpu"),
        uses=lambda recipe: recipe.train.compile == "reduce-overhead",
        reason="reduce-overhead is CUDA graphs, which only NVIDIA and AMD GPUs have",
        instead="set it to true",
    ),
    Unsupported(
        option="train.compile",
        where=(ACCUMULATION,),
        uses=lambda recipe: recipe.train.compile == "reduce-overhead",
        reason="CUDA graphs over several micro-batches a step were never tested",
        instead="set it to true, or raise train.micro_batch (or use more processes) until a step has one",
    ),
    Unsupported(
        option="optim.name",
        where=SHARDED,
        uses=lambda recipe: recipe.optim.name == "muon",
        reason="muon needs whole kernels, and here each process has a part of them",
        instead=f"use sgd or adamw, or DDP ({config_file('ddp')})",
    ),
    Unsupported(
        option="train.grad_compression",
        where=SHARDED,
        uses=lambda recipe: recipe.train.grad_compression is not None,
        reason="gradients are sent without DDP's hooks",
        instead=f"set it to null, or use DDP ({config_file('ddp')})",
    ),
    Unsupported(
        option="train.ema_decay",
        where=("zero1_offload", "zero2_offload", "zero3_offload"),
        uses=lambda recipe: recipe.train.ema_decay is not None,
        reason="the fp32 weights that it averages are in host memory",
        instead=f"set it to null, or use zero3 without offload ({config_file('zero3')}) on more GPUs",
    ),
)


def unsupported(recipe: Recipe, *, device: str, strategy: str, accumulation_steps: int = 1) -> list[str]:
    """What of a recipe cannot be done here, one line each; empty if everything can."""
    return [
        f"{entry.option}: does not work on {place}: {entry.reason}; {entry.instead}"
        for entry in TABLE
        for place in (device, strategy, ACCUMULATION if accumulation_steps > 1 else "")
        if place in entry.where and entry.uses(recipe)
    ]
