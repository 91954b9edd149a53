"""A plan as JSON values."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.memory import CUDA_CONTEXT, FP32, FRAGMENTATION, NCCL_BUFFERS
from cifar_lab.planning.options import FILL, HOST_MEMORY, Option, Setup, fastest, num_moments
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule

Call = tuple[str, Sequence[str]]


def describe(
    call: Call,
    recipe: Recipe,
    num_train: int,
    footprint: Footprint,
    setup: Setup,
    found: list[Option],
    schedule: Schedule,
) -> dict[str, Any]:
    """The whole plan; `call` is the path of the recipe and its overrides. Bytes, seconds, FLOPs; `choice` is an index.

    Null where nothing fits.
    """
    best = fastest(found)
    topology = setup.topology
    return {
        "recipe": recipe.name,
        "gpu": {"name": setup.gpu.name, "memory": setup.gpu.memory, "usable": setup.memory},
        "gpus": topology.gpus,
        "nodes": topology.nodes,
        "world_size": topology.world_size,
        "links": {
            "inside": topology.inside.name if topology.gpus > 1 else None,
            "between": topology.between.name if topology.between and topology.nodes > 1 else None,
        },
        "model": {
            "num_parameters": footprint.num_parameters,
            "flops_per_image": footprint.flops_per_image,
            "checkpoint_bytes": checkpoint_bytes(recipe, footprint),
        },
        "batch": {
            "global_batch": schedule.global_batch,
            "num_train": num_train,
            "steps_per_epoch": schedule.steps_per_epoch,
            "total_steps": schedule.total_steps,
        },
        "assumptions": assumptions(setup),
        "plans": [_option(call, recipe, setup, option, schedule) for option in found],
        "choice": None if best is None else found.index(best),
    }


def assumptions(setup: Setup) -> dict[str, Any]:
    """What was not measured."""
    cuda = setup.device == "cuda"
    return {
        "utilisation": setup.utilisation,
        "peak_flops": {precision: setup.gpu.flops(precision) for precision in ("bf16", "fp32")},
        "cuda_context_bytes": CUDA_CONTEXT if cuda else 0,
        "nccl_bytes": NCCL_BUFFERS if cuda and setup.topology.world_size > 1 else 0,
        "fragmentation": FRAGMENTATION[setup.device],
        "memory_filled": FILL,
        "host_bytes_a_process": HOST_MEMORY,
    }


def checkpoint_bytes(recipe: Recipe, footprint: Footprint) -> int:
    """One checkpoint: weights and buffers, moments, and the moving average."""
    weights = FP32 * footprint.num_parameters + footprint.buffer_bytes
    moments = num_moments(recipe) * FP32 * footprint.num_trainable
    return weights + moments + (weights if recipe.train.ema_decay is not None else 0)


def command(call: Call, recipe: Recipe, setup: Setup, option: Option) -> str:
    """How to start an option; with several nodes on each of them, R being its number from 0."""
    path, overrides = call
    topology = setup.topology
    name = {"single": "cpu" if setup.device == "cpu" else "single_gpu"}.get(option.strategy, option.strategy)
    if option.strategy == "ddp":
        name = "cpu" if setup.device == "cpu" else "ddp_multi_node" if topology.nodes > 1 else "ddp"
    words = ["accelerate", "launch", "--config_file", f"accelerate_configs/{name}.yaml"]
    if topology.nodes > 1:
        words += ["--num_machines", str(topology.nodes), "--machine_rank", "R"]
        words += ["--main_process_ip", "HOST", "--main_process_port", "29511"]
    if name != "single_gpu":
        words += ["--num_processes", str(topology.world_size)]
    prefix = "ACCELERATE_USE_CPU=true " if setup.device == "cpu" and name == "cpu" else ""
    return prefix + shlex.join([*words, "-m", "cifar_lab.train", path, *overrides, *_overrides(recipe, setup, option)])


def _overrides(recipe: Recipe, setup: Setup, option: Option) -> list[str]:
    """What the recipe does not say yet."""
    changes = {
        "train.micro_batch": (option.micro_batch, _default_micro_batch(recipe, setup)),
        "train.grad_checkpointing": (option.grad_checkpointing, recipe.train.grad_checkpointing),
        "eval.batch": (option.eval_batch, recipe.eval.batch),
    }
    return [f"{key}={str(new).lower()}" for key, (new, old) in changes.items() if new != old]


def _default_micro_batch(recipe: Recipe, setup: Setup) -> int:
    share = recipe.train.global_batch // setup.topology.world_size
    cap = min(share, recipe.train.micro_batch or share)
    return max(b for b in range(1, cap + 1) if share % b == 0)


def _option(call: Call, recipe: Recipe, setup: Setup, option: Option, schedule: Schedule) -> dict[str, Any]:
    step = option.timing.step
    return {
        "strategy": option.strategy,
        "grad_checkpointing": option.grad_checkpointing,
        "fits": option.problem is None,
        "problem": option.problem,
        "micro_batch": option.micro_batch,
        "accumulation_steps": option.accumulation_steps,
        "eval_batch": option.eval_batch,
        "memory": {**asdict(option.memory), "total": option.memory.total},
        "communication": asdict(option.traffic),
        "flops_per_step": option.timing.flops,
        "seconds": {
            "compute": option.timing.compute,
            "optimizer": option.timing.optimizer,
            "exposed_communication": option.timing.exposed,
            "step": step,
            "epoch": step * schedule.steps_per_epoch,
            "run": step * schedule.total_steps,
        },
        "command": command(call, recipe, setup, option) if option.problem is None else None,
    }
