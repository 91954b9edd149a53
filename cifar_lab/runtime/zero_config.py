"""The complete DeepSpeed configuration of a run: the recipe's part, the launcher's part, and nothing left to guess."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from accelerate.utils import DeepSpeedPlugin

from cifar_lab.errors import UsageError
from cifar_lab.files.shipped import config_file
from cifar_lab.recipe import Recipe
from cifar_lab.runtime.launcher import OF_THE_RECIPE, deepspeed_file

# Elements that are on their way between processes at once: 40 MB in fp32. DeepSpeed's own 500 million would reserve
# 2 GB a process whatever the model, and its 1000 million for reuse would keep weights gathered for a whole step.
BUCKET = 10_000_000
LIVE_PARAMETERS = 50_000_000
# Parameters smaller than this stay whole on every process under stage 3.
PERSISTENCE_THRESHOLD = 100_000


@dataclass(frozen=True)
class ZeroSetup:
    """What the launcher asks for: hardware, and `asked`, what its DeepSpeed file says."""

    stage: int
    offload_optimizer: bool = False
    offload_param: bool = False
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def strategy(self) -> str:
        """`zero1` to `zero3`, with `_offload` when states live in host memory."""
        return f"zero{self.stage}" + ("_offload" if self.offload_optimizer or self.offload_param else "")

    @classmethod
    def from_accelerate(cls, plugin: DeepSpeedPlugin) -> ZeroSetup:
        """The setup of `accelerate launch --use_deepspeed ...`. Raises UsageError for what is not supported."""
        devices = {"optimizer": plugin.offload_optimizer_device, "param": plugin.offload_param_device}
        for name, device in devices.items():
            if device not in (None, "none", "cpu"):
                raise UsageError(f"offload_{name}_device: {device} is not supported; cpu and none are")
        if plugin.zero_stage not in (1, 2, 3):
            raise UsageError(f"zero_stage: {plugin.zero_stage} shards nothing; take 1, 2 or 3, or {config_file('ddp')}")
        setup = cls(plugin.zero_stage, devices["optimizer"] == "cpu", devices["param"] == "cpu")
        path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
        # Accelerate has read it already, and adds to its own copy what the file does not say.
        return setup if path == "none" else replace(setup, asked=deepspeed_file(path))


def deepspeed_config(
    recipe: Recipe, setup: ZeroSetup, *, world_size: int, accumulation_steps: int, num_parameters: int
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`: what `check_launch` has refused is not looked at."""
    train = recipe.train
    hardware = {key: value for key, value in setup.asked.items() if key not in OF_THE_RECIPE}
    return {
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device at every step
        **hardware,
        "train_batch_size": train.global_batch,
        "train_micro_batch_size_per_gpu": train.global_batch // (world_size * accumulation_steps),
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": train.grad_clip or 0.0,
        # Autocast over fp32 weights, as under every strategy. Accelerate would turn the section `bf16` on, which rounds
        # the weights, if it were not there.
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": train.precision == "bf16", "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,  # SGD is not on its list; tests/runtime/test_zero.py tests it
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW needs no compiler on the training machine
        "zero_optimization": _zero_section(setup, num_parameters) | hardware.get("zero_optimization", {}),
    }


def _zero_section(setup: ZeroSetup, num_parameters: int) -> dict[str, Any]:
    bucket = min(BUCKET, num_parameters + num_parameters % 2)  # it must be even
    section: dict[str, Any] = {
        "stage": setup.stage,
        "overlap_comm": setup.stage == 3,
        "contiguous_gradients": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if setup.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if setup.offload_param:
        section["offload_param"] = {"device": "cpu", "pin_memory": True}
    if setup.stage == 3:
        section["stage3_prefetch_bucket_size"] = bucket
        section["stage3_max_reuse_distance"] = bucket
        section["stage3_max_live_parameters"] = LIVE_PARAMETERS
        section["stage3_param_persistence_threshold"] = PERSISTENCE_THRESHOLD
    return section
