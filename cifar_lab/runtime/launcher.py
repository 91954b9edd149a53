"""What Accelerate's launcher says to the processes, and what comes of it: obeyed, refused by name, or without effect.

It speaks through the environment (accelerate 1.15: commands/launch.py and utils/launch.py); `python
scripts/launcher_reference.py` makes docs/launchers.md of the tables here.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from cifar_lab.errors import UsageError
from cifar_lab.files.shipped import config_file
from cifar_lab.recipe import Recipe

log = logging.getLogger("cifar_lab")

OFF = ("", "0", "false", "f", "no", "n", "off", "none")
MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Setting:
    """A variable, or all that begin alike (`FSDP_*`: another one decides whether they count), and how a user says it.

    `said` is an option of the launcher, with its key in an accelerate configuration unless they are alike; "" where
    only the environment can say it. A refused one passes with a value of `passes`, or with that of the recipe's `key`.
    """

    variable: str
    verdict: Literal["obeyed", "refused", "neutral"]
    said: str
    why: str
    passes: tuple[str, ...] = OFF
    key: str = ""

    @property
    def place(self) -> str:
        """The launcher's option, and its key in an accelerate configuration; "" where there is neither."""
        return f"--{self.said}, {self.said}" if self.said.replace("*", "").isidentifier() else self.said

    def problem(self, value: str, recipe: Recipe) -> str | None:
        """Why `value` stops the start; None if it does not."""
        decided = reduce(getattr, self.key.split("."), recipe) if self.key else None
        if self.verdict != "refused" or self.variable.endswith("*") or value.lower() in self.passes:
            return None
        if self.key and _equal(value, decided):
            return None
        why = f"{self.why}, which says {'null' if decided is None else decided}" if self.key else self.why
        place = f" (of accelerate launch or its configuration: {self.place})" if self.said else ""
        return f"{self.variable}={value}{place}: {why}; leave it out"


SETTINGS = (
    Setting("ACCELERATE_USE_CPU", "obeyed", "--cpu, use_cpu", "under torchrun and plain python too"),
    Setting("ACCELERATE_CPU_AFFINITY", "obeyed", "enable_cpu_affinity", "by Accelerate"),
    Setting("ACCELERATE_USE_DEEPSPEED", "obeyed", "--use_deepspeed, distributed_type: DEEPSPEED", "see zero.md"),
    Setting("ACCELERATE_DEEPSPEED_ZERO_STAGE", "obeyed", "zero_stage", "1, 2, 3; 0 shards nothing and is refused"),
    Setting("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "obeyed", "offload_optimizer_device", "nvme is refused"),
    Setting("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "obeyed", "offload_param_device", "nvme is refused"),
    Setting("ACCELERATE_DEEPSPEED_CONFIG_FILE", "obeyed", "deepspeed_config_file", "except what the recipe decides"),
    Setting("ACCELERATE_MIXED_PRECISION", "refused", "mixed_precision", "decided by train.precision of the recipe",
            ("no",), "train.precision"),
    Setting("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "refused", "gradient_accumulation_steps",
            "decided by train.micro_batch of the recipe and the number of processes", ("1",)),
    Setting("ACCELERATE_GRADIENT_CLIPPING", "refused", "gradient_clipping", "decided by train.grad_clip of the recipe",
            ("auto", "none"), "train.grad_clip"),
    Setting("ACCELERATE_DYNAMO_BACKEND", "refused", "dynamo_backend", "decided by train.compile of the recipe"),
    Setting("ACCELERATE_DYNAMO_*", "neutral", "--dynamo_*, dynamo_config", "without ACCELERATE_DYNAMO_BACKEND"),
    Setting("ACCELERATE_FP8_BACKEND", "refused", "fp8_backend", "train.precision of the recipe has no fp8"),
    Setting("ACCELERATE_FP8_*", "refused", "--fp8_*, fp8_config", "by ACCELERATE_MIXED_PRECISION"),
    Setting("ACCELERATE_USE_FSDP", "obeyed", "--use_fsdp, distributed_type: FSDP", "FSDP2, see zero.md"),
    Setting("FSDP_VERSION", "refused", "fsdp_version", f"only FSDP2 works: {config_file('fsdp2')}", ("2",)),
    Setting("FSDP_RESHARD_AFTER_FORWARD", "obeyed", "fsdp_reshard_after_forward", "true or false"),
    Setting("FSDP_OFFLOAD_PARAMS", "refused", "fsdp_offload_params", f"use {config_file('zero3_offload')}"),
    Setting("FSDP_AUTO_WRAP_POLICY", "refused", "fsdp_auto_wrap_policy", "the layers that a model repeats are found",
            ("transformer_based_wrap",)),
    Setting("FSDP_TRANSFORMER_CLS_TO_WRAP", "refused", "fsdp_transformer_layer_cls_to_wrap",
            "the layers that a model repeats are found"),
    Setting("FSDP_ACTIVATION_CHECKPOINTING", "refused", "fsdp_activation_checkpointing",
            "decided by train.grad_checkpointing of the recipe"),
    Setting("FSDP_IGNORED_MODULES", "refused", "fsdp_ignored_modules", "all parameters are sharded"),
    Setting("FSDP_*", "neutral", "--fsdp_*, fsdp_config", "only for FSDP1, or for checkpoints of another form"),
    Setting("ACCELERATE_USE_MEGATRON_LM", "refused", "--use_megatron_lm, distributed_type: MEGATRON_LM",
            f"Megatron-LM is not supported, use {config_file('zero3')}"),
    Setting("MEGATRON_LM_*", "refused", "--megatron_lm_*, megatron_lm_config", "by ACCELERATE_USE_MEGATRON_LM"),
    Setting("ACCELERATE_USE_PARALLELISM_CONFIG", "refused", "--use_parallelism_config, parallelism_config",
            f"only data parallelism works, use {config_file('ddp')}"),
    Setting("PARALLELISM_CONFIG_*", "refused", "--parallelism_config_*, parallelism_config",
            "by ACCELERATE_USE_PARALLELISM_CONFIG"),
    Setting("ACCELERATE_DEEPSPEED_ZERO3_INIT", "refused", "zero3_init_flag", "every process builds the whole model"),
    Setting("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL", "refused", "zero3_save_16bit_model", "fp32 is saved"),
    Setting("ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES", "refused", "deepspeed_moe_layer_cls_names", "no experts here"),
    Setting("ACCELERATE_DEEPSPEED_OFFLOAD_*", "refused", "offload_*_nvme_path", "by offload_*_device: no nvme"),
    *(Setting(size, "refused", "mpirun_hostfile", "no MPI here, use torchrun", ("1",)) for size in MPI),
    Setting("ACCELERATE_TORCH_DEVICE", "refused", "", "choose by CUDA_VISIBLE_DEVICES or ACCELERATE_USE_CPU"),
    Setting("ACCELERATE_USE_SAGEMAKER", "refused", "compute_environment: AMAZON_SAGEMAKER", "it is not supported"),
    Setting("ACCELERATE_SAGEMAKER_*", "refused", "distributed_type: DATA_PARALLEL", "by ACCELERATE_USE_SAGEMAKER"),
    Setting("ACCELERATE_IN_TPU_POD", "refused", "--tpu, distributed_type: XLA", "TPUs are not supported"),
    Setting("ACCELERATE_DOWNCAST_BF16", "neutral", "downcast_bf16", "only for TPUs, which are not supported"),
    Setting("ACCELERATE_DEBUG_MODE", "neutral", "debug", "more checks and messages of Accelerate"),
    Setting("ACCELERATE_LOG_LEVEL", "neutral", "", "what Accelerate prints"),
    Setting("ACCELERATE_ENABLE_RICH", "neutral", "", "how Accelerate prints"),
    Setting("ACCELERATE_CONFIG_DS_FIELDS", "neutral", "", "what Accelerate compares with a DeepSpeed file"),
    Setting("ACCELERATE_ALLOW_CP_STANDALONE", "neutral", "", "without ACCELERATE_USE_PARALLELISM_CONFIG"),
    Setting("ACCELERATE_BYPASS_DEVICE_MAP", "neutral", "", "only for models on several devices"),
    Setting("ACCELERATE_INIT_INCLUDE_BUFFERS", "neutral", "", "only for models that Accelerate builds"),
    Setting("ACCELERATE_DEBUG_RDV_FILE", "neutral", "", "only under Accelerate's debug_launcher"),
)  # fmt: skip

# What of a DeepSpeed file would decide what the recipe decides, and the key of the recipe that does.
OF_THE_RECIPE = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.micro_batch",
    "gradient_clipping": "train.grad_clip",
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


def check_launch(environ: Mapping[str, str], recipe: Recipe) -> None:
    """Refuse, with all places, what a launch says and `recipe` does not; tell of what is not known.

    Before torch is imported. Raises UsageError.
    """
    problems = list(_problems(environ, recipe))
    if problems:
        raise UsageError("\n".join(problems))
    unknown = [name for name in environ if name.startswith("ACCELERATE_") and find_setting(name) is None]
    if unknown and environ.get("RANK", "0") == "0":
        log.warning(
            "%s: not known here and without effect (docs/launchers.md lists known settings)", ", ".join(unknown)
        )


def find_setting(variable: str) -> Setting | None:
    """The row of a variable, its own before that of its like."""
    own = [s for s in SETTINGS if s.variable == variable]
    alike = [s for s in SETTINGS if s.variable.endswith("*") and variable.startswith(s.variable[:-1])]
    return next(iter(own + alike), None)


def on_cpu(environ: Mapping[str, str]) -> bool:
    """Whether the launch asks for CPUs, whatever else there is."""
    return environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "t", "yes", "y", "on")


def uses_deepspeed(environ: Mapping[str, str]) -> bool:
    """Whether the launch asks for DeepSpeed."""
    return environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"


def uses_fsdp(environ: Mapping[str, str]) -> bool:
    """Whether the launch asks for FSDP."""
    return environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def _problems(environ: Mapping[str, str], recipe: Recipe) -> Iterator[str]:
    # `accelerate launch --cpu` starts one process however many it was asked for (accelerate 1.15). It sets an address
    # only if it was asked for several, and a world size never; our wrappers say theirs themselves.
    told = "WORLD_SIZE" in environ or "CIFAR_LAB_WORLD_SIZE" in environ
    lonely = on_cpu(environ) and "ACCELERATE_MIXED_PRECISION" in environ and "MASTER_ADDR" in environ
    if lonely and not told:
        yield (
            "`accelerate launch --cpu` was asked for several processes but starts a single one, which would train "
            "alone. On CPUs start with `torchrun --nproc-per-node N`, or `ACCELERATE_USE_CPU=true accelerate launch "
            f"--config_file {config_file('cpu')} --num_processes N`."
        )
    if on_cpu(environ) and uses_deepspeed(environ):
        yield (
            "ACCELERATE_USE_CPU turns DeepSpeed into DDP: leave it out, DeepSpeed takes CPUs where no GPU is visible "
            "(CUDA_VISIBLE_DEVICES=)"
        )
    for name in sorted(environ):
        setting = find_setting(name)
        if name.startswith("FSDP_") and not uses_fsdp(environ):
            continue
        if setting and not (told and name in MPI) and (problem := setting.problem(environ[name], recipe)):
            yield problem
    path = environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if uses_deepspeed(environ) and path != "none":
        yield from (
            f"{path}: {key} is for the recipe to decide ({OF_THE_RECIPE[key]}): remove it, or set it to auto"
            for key, value in deepspeed_file(path).items()
            if key in OF_THE_RECIPE
            and value not in (None, {})
            and not (isinstance(value, dict) and value.get("enabled") is False)
        )


def deepspeed_file(path: str) -> dict[str, Any]:
    """What a DeepSpeed file says, without what it leaves open ("auto"). Raises UsageError."""
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the DeepSpeed file of the launch, {path}, cannot be read: {error}") from None
    return _without_auto(said) if isinstance(said, dict) else {}


def _without_auto(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without_auto(value) for key, value in node.items() if value != "auto"}


def _equal(value: str, decided: Any) -> bool:
    try:
        return float(value) == float(decided or 0)
    except ValueError:
        return value == decided
