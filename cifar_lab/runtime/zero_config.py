"""The complete DeepSpeed configuration of a run: the recipe's part, the launcher's part, and nothing left to guess."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import DeepSpeedPlugin

from cifar_lab.recipe import Recipe
from cifar_lab.runtime.options import OptionError

# Elements that are on their way between processes at once: 40 MB in fp32. DeepSpeed's own 500 million would reserve
# 2 GB a process whatever the model, and its 1000 million for reuse would keep weights gathered for a whole step.
BUCKET = 10_000_000
LIVE_PARAMETERS = 50_000_000
# Parameters smaller than this stay whole on every process under stage 3.
PERSISTENCE_THRESHOLD = 100_000

# Sections of a DeepSpeed file that would decide what the recipe decides, and the key of the recipe that does.
OF_THE_RECIPE = {
    "optimizer": "optim",
    "scheduler": "optim.schedule",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "amp": "train.precision",
    "torch_autocast": "train.precision",
    "data_types": "train.precision",
    "data_efficiency": "data",
    "curriculum_learning": "data",
    "progressive_layer_drop": "model.args",
    "compression_training": "model.args",
    "elasticity": "train.global_batch",
}


@dataclass(frozen=True)
class ZeroSetup:
    """What the launcher asks for: hardware alone, no batches, no precision. `file` holds a DeepSpeed file, if any."""

    stage: int
    offload_optimizer: bool = False
    offload_param: bool = False
    gradient_accumulation_steps: int | None = None
    gradient_clipping: float | None = None
    path: str | None = None
    file: dict[str, Any] = field(default_factory=dict)

    @property
    def strategy(self) -> str:
        """`zero1` to `zero3`, with `_offload` when states live in host memory."""
        return f"zero{self.stage}" + ("_offload" if self.offload_optimizer or self.offload_param else "")

    @classmethod
    def from_accelerate(cls, plugin: DeepSpeedPlugin) -> ZeroSetup:
        """The setup of `accelerate launch --use_deepspeed ...`. Raises OptionError for what is not supported."""
        path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
        devices = {"optimizer": plugin.offload_optimizer_device, "param": plugin.offload_param_device}
        for name, device in devices.items():
            if device not in (None, "none", "cpu"):
                raise OptionError(f"offload_{name}_device: {device} is not supported; cpu and none are")
        if plugin.zero_stage not in (1, 2, 3):
            raise OptionError(
                f"zero_stage: {plugin.zero_stage} shards nothing; take 1, 2 or 3, or accelerate_configs/ddp.yaml"
            )
        accumulation, clipping = plugin.gradient_accumulation_steps, plugin.gradient_clipping
        from_file = path != "none"
        return cls(
            stage=plugin.zero_stage,
            offload_optimizer=devices["optimizer"] == "cpu",
            offload_param=devices["param"] == "cpu",
            # Accelerate fills in 1 and "auto" for what nobody asked for; a file is read for itself.
            gradient_accumulation_steps=None if from_file or accumulation in ("auto", 1) else accumulation,
            gradient_clipping=None if from_file or clipping == "auto" else clipping,
            path=path if from_file else None,
            file=read_file(path) if from_file else {},
        )


def read_file(path: str) -> dict[str, Any]:
    """A DeepSpeed file as written, without its `auto` values. Raises OptionError."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"deepspeed_config_file {path} cannot be read as JSON: {error}") from error
    known: dict[str, Any] = _without_auto(content)
    return known


def deepspeed_config(
    recipe: Recipe, setup: ZeroSetup, *, world_size: int, accumulation_steps: int, num_parameters: int
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`. Raises OptionError, a line for each contradiction with the recipe."""
    train = recipe.train
    decided: dict[str, Any] = {
        "train_batch_size": train.global_batch,
        "train_micro_batch_size_per_gpu": train.global_batch // (world_size * accumulation_steps),
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": train.grad_clip or 0.0,
    }
    problems = _contradictions(recipe, setup, decided, world_size)
    if problems:
        raise OptionError("\n".join(problems))
    config = {key: value for key, value in setup.file.items() if key not in OF_THE_RECIPE}
    return {
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device at every step
        **config,
        **decided,
        # Autocast over fp32 weights, as under every strategy; DeepSpeed's `bf16` section would round the weights.
        "torch_autocast": {"enabled": train.precision == "bf16", "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,  # SGD is not on its list; tests/runtime/test_zero.py tests it
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW needs no compiler on the training machine
        "zero_optimization": _zero_section(setup, num_parameters) | setup.file.get("zero_optimization", {}),
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


def _contradictions(recipe: Recipe, setup: ZeroSetup, decided: dict[str, Any], world_size: int) -> list[str]:
    """One line for each value outside the recipe that differs from it, naming both places."""
    reasons = {
        "train_batch_size": "train.global_batch",
        "train_micro_batch_size_per_gpu": f"train.global_batch and train.micro_batch on {world_size} processes",
        "gradient_accumulation_steps": f"train.global_batch and train.micro_batch on {world_size} processes",
        "gradient_clipping": f"train.grad_clip={recipe.train.grad_clip}",
    }
    launcher = {key: getattr(setup, key) for key in ("gradient_accumulation_steps", "gradient_clipping")}
    problems = [
        f"{place}: {key}={found[key]!r} contradicts the recipe ({reasons[key]}), which makes it {value!r}: "
        f"remove it from {place}, or change the recipe"
        for place, found in ((setup.path, setup.file), ("the accelerate launcher's options or configuration", launcher))
        for key, value in decided.items()
        if found.get(key) not in (None, value)
    ]
    autocast = {"enabled": recipe.train.precision == "bf16", "dtype": "bfloat16"}
    for section, key in OF_THE_RECIPE.items():
        content = setup.file.get(section)
        disabled = isinstance(content, dict) and not content.get("enabled", True)
        if content and not disabled and not (section == "torch_autocast" and autocast | content == autocast):
            problems.append(
                f"{setup.path}: section {section} contradicts the recipe, whose {key} decides it: remove it"
            )
    return problems


def _without_auto(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without_auto(value) for key, value in node.items() if value != "auto"}
