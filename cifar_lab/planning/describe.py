"""A plan as JSON values, and the command that starts an option."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cifar_lab.planning.hardware import FILL
from cifar_lab.planning.make import Plan
from cifar_lab.planning.memory import CUDA_CONTEXT, FRAGMENTATION, NCCL_BUFFERS, checkpoint_bytes
from cifar_lab.planning.options import HOST_MEMORY, Option


def describe(plan: Plan, path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The whole plan of the recipe at `path`. Bytes, seconds, FLOPs; `choice` is an index, null where nothing fits."""
    best, setup, schedule = plan.fastest, plan.setup, plan.schedule
    topology, cuda = setup.topology, setup.device == "cuda"
    return {
        "recipe": plan.recipe.name,
        "gpu": {"name": setup.gpu.name, "memory": setup.gpu.memory, "usable": setup.memory},
        "gpus": topology.gpus,
        "nodes": topology.nodes,
        "world_size": topology.world_size,
        "links": {
            "inside": topology.inside.name if topology.gpus > 1 else None,
            "between": topology.between.name if topology.between and topology.nodes > 1 else None,
        },
        "model": {
            "num_parameters": plan.footprint.num_parameters,
            "flops_per_image": plan.footprint.flops_per_image,
            "checkpoint_bytes": checkpoint_bytes(plan.recipe, plan.footprint),
        },
        "batch": {
            "global_batch": schedule.global_batch,
            "num_train": plan.sizes.num_train,
            "steps_per_epoch": schedule.steps_per_epoch,
            "total_steps": schedule.total_steps,
        },
        "assumptions": {
            "utilisation": setup.utilisation,
            "peak_flops": {precision: setup.gpu.flops(precision) for precision in ("bf16", "fp32")},
            "cuda_context_bytes": CUDA_CONTEXT if cuda else 0,
            "nccl_bytes": NCCL_BUFFERS if cuda and topology.world_size > 1 else 0,
            "fragmentation": FRAGMENTATION[setup.device],
            "memory_filled": FILL,
            "host_bytes_a_process": HOST_MEMORY,
        },
        "plans": [_option(plan, option, path, overrides) for option in plan.options],
        "choice": None if best is None else plan.options.index(best),
    }


def _option(plan: Plan, option: Option, path: str, overrides: Sequence[str]) -> dict[str, Any]:
    layout, step = option.layout, option.timing.step
    return {
        "strategy": layout.strategy,
        "grad_checkpointing": layout.checkpointing,
        "fits": option.problem is None,
        "problem": option.problem,
        "micro_batch": layout.micro_batch,
        "accumulation_steps": option.accumulation_steps,
        "eval_batch": layout.eval_batch,
        "memory": {**asdict(option.memory), "total": option.memory.total},
        "communication": asdict(option.traffic),
        "flops_per_step": option.timing.flops,
        "seconds": {
            "compute": option.timing.compute,
            "optimizer": option.timing.optimizer,
            "exposed_communication": option.timing.exposed,
            "step": step,
            "epoch": step * plan.schedule.steps_per_epoch,
            "run": step * plan.schedule.total_steps,
        },
        "command": _command(plan, option, path, overrides) if option.problem is None else None,
    }


def _command(plan: Plan, option: Option, path: str, overrides: Sequence[str]) -> str:
    """How to start an option; with several nodes on each of them, R being its number from 0."""
    topology, strategy = plan.setup.topology, option.layout.strategy
    if strategy in ("single", "ddp") and plan.setup.device == "cpu":
        name = "cpu"
    elif strategy == "ddp" and topology.nodes > 1:
        name = "ddp_multi_node"
    else:
        name = "single_gpu" if strategy == "single" else strategy
    words = ["accelerate", "launch", "--config_file", f"accelerate_configs/{name}.yaml"]
    if topology.nodes > 1:
        words += ["--num_machines", str(topology.nodes), "--machine_rank", "R"]
        words += ["--main_process_ip", "HOST", "--main_process_port", "29511"]
    if name != "single_gpu":
        words += ["--num_processes", str(topology.world_size)]
    prefix = "ACCELERATE_USE_CPU=true " if name == "cpu" else ""
    return prefix + shlex.join([*words, "-m", "cifar_lab.train", path, *overrides, *_changes(plan, option)])


def _changes(plan: Plan, option: Option) -> list[str]:
    """What the recipe does not say yet."""
    recipe, layout = plan.recipe, option.layout
    changes = {
        "train.micro_batch": (layout.micro_batch, plan.schedule.micro_batch),
        "train.grad_checkpointing": (layout.checkpointing, recipe.train.grad_checkpointing),
        "eval.batch": (layout.eval_batch, recipe.eval.batch),
    }
    return [f"{key}={str(new).lower()}" for key, (new, old) in changes.items() if new != old]
