"""A plan as JSON values, as text of 80 columns, and the command that starts a way to run it."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cifar_lab.cli.printable import duration
from cifar_lab.cli.table import table
from cifar_lab.files.shipped import config_file
from cifar_lab.planning.hardware import FILL, GIB
from cifar_lab.planning.make import HOST_MEMORY, Option, Plan, fastest
from cifar_lab.planning.memory import CUDA_CONTEXT, FRAGMENTATION, NCCL_BUFFERS, checkpoint_bytes
from cifar_lab.recipe.nvidia import PYPI, findings

PARTS = {
    "params": "parameters",
    "grads": "gradients",
    "optim": "optimizer",
    "ema": "ema",
    "activ": "activations",
    "data": "data",
    "work": "workspace",
    "total": "total",
}
STAR = "* the one to take: the shortest step; of those within 2 % of it the simplest"
TIMES = ("s/step", "min/epoch", "h/run", "GB sent", "s sending")
LEGEND = """
ckpt: gradient checkpointing. batch: micro-batch x accumulation steps. params,
grads, optim, ema, activ: parameters, gradients, optimizer state, moving average
of the weights, activations. data: pictures. work: CUDA, NCCL, fragmentation."""
SENDING = "GB sent, s sending: by each process in a step; a part overlaps with computing."


def describe(plan: Plan, path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The whole plan of the recipe at `path`. Bytes, seconds, FLOPs; `choice` is an index, null where nothing fits."""
    best, setup, schedule = fastest(plan.options), plan.setup, plan.schedule
    cuda = setup.device == "cuda"
    return {
        "recipe": plan.recipe.name,
        "gpu": {"name": setup.gpu.name, "memory": setup.gpu.memory, "usable": setup.memory},
        "gpus": setup.gpus,
        "nodes": setup.nodes,
        "world_size": setup.world_size,
        "links": {
            "inside": setup.inside.name if setup.gpus > 1 else None,
            "between": setup.between.name if setup.nodes > 1 else None,
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
            "peak_flops": {precision: setup.gpu.flops(precision) for precision in ("bf16", "fp16", "tf32", "fp32")},
            "cuda_context_bytes": CUDA_CONTEXT if cuda else 0,
            "nccl_bytes": NCCL_BUFFERS if cuda and setup.world_size > 1 else 0,
            "fragmentation": FRAGMENTATION[setup.device],
            "memory_filled": FILL,
            "host_bytes_a_process": HOST_MEMORY,
        },
        "notes": [
            asdict(each) for each in findings(setup.gpu.name, setup.gpu.capability, PYPI, "from PyPI", plan.recipe)
        ],
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
    setup, strategy = plan.setup, option.layout.strategy
    if strategy in ("single", "ddp") and setup.device == "cpu":
        name = "cpu"
    elif strategy == "ddp" and setup.nodes > 1:
        name = "ddp_multi_node"
    else:
        name = "single_gpu" if strategy == "single" else strategy
    words = ["accelerate", "launch", "--config_file", config_file(name)]
    if setup.nodes > 1:
        words += ["--num_machines", str(setup.nodes), "--machine_rank", "R"]
        words += ["--main_process_ip", "HOST", "--main_process_port", "29511"]
    if name != "single_gpu":
        words += ["--num_processes", str(setup.world_size)]
    prefix = "ACCELERATE_USE_CPU=true " if name == "cpu" else ""
    return prefix + shlex.join([*words, "-m", "cifar_lab.train", path, *overrides, *changes(plan, option)])


def changes(plan: Plan, option: Option) -> list[str]:
    """What the recipe does not say yet, as overrides."""
    recipe, layout = plan.recipe, option.layout
    values = {
        "train.micro_batch": (layout.micro_batch, plan.schedule.micro_batch),
        "train.grad_checkpointing": (layout.checkpointing, recipe.train.grad_checkpointing),
        "eval.batch": (layout.eval_batch, recipe.eval.batch),
    }
    return [f"{key}={str(new).lower()}" for key, (new, old) in values.items() if new != old]


def render(plan: Mapping[str, Any]) -> str:
    """The text; no line of it is wider than 80 columns but the commands to copy."""
    choice = plan["plans"][plan["choice"]]
    ways = [(_way(option, chosen=option is choice), option) for option in plan["plans"]]
    memory = [[*way, *(_gib(option["memory"][part]) for part in PARTS.values())] for way, option in ways]
    times = [[*way[:-1], *_times(option)] for way, option in ways]
    problems = [
        f"- {option['strategy']}, gradient checkpointing {way[2]}: {option['problem']}"
        for way, option in ways
        if option["problem"]
    ]
    return "\n\n".join(
        [
            table(_summary(plan)),
            "GiB on each GPU, at the largest micro-batch that fits\n"
            + table(memory, ["", "strategy", "ckpt", "batch", *PARTS], numbers=PARTS, gap=1)
            + LEGEND,
            "\n".join([table(times, ["", "strategy", "ckpt", *TIMES], numbers=TIMES), STAR, SENDING, *problems]),
            table(_fastest(plan, choice)),
            *(f"{textwrap.fill('note: ' + note['says'], 80)}\n-> {note['fix']}" for note in plan["notes"]),
            choice["command"],
        ]
    )


def _summary(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, batch, assumed = plan["model"], plan["batch"], plan["assumptions"]
    where = f"{plan['nodes']} nodes of " if plan["nodes"] > 1 else ""
    where += f"{plan['gpus']} x {plan['gpu']['name']}"
    where += "".join(f", {name} {side} nodes" for side, name in plan["links"].items() if name)
    fixed = f"CUDA context {_gib(assumed['cuda_context_bytes'])} GiB, NCCL {_gib(assumed['nccl_bytes'])} GiB"
    return [
        ("model", f"{plan['recipe']}: {model['num_parameters']:,} parameters"),
        ("", f"{model['flops_per_image'] / 1e9:,.4g} GFLOP per image (forward pass)"),
        ("batch", f"{batch['global_batch']} images per step, {batch['steps_per_epoch']:,} steps per epoch"),
        ("on", where),
        *([("assumed", fixed)] if assumed["cuda_context_bytes"] else []),
        ("assumed", f"{assumed['fragmentation']:.0%} fragmentation, {assumed['memory_filled']:.0%} of memory usable"),
        ("assumed", f"{assumed['utilisation']:.0%} of the peak FLOP/s"),
    ]


def _way(option: Mapping[str, Any], *, chosen: bool) -> list[str]:
    mark = "*" if chosen else "-" if option["problem"] else ""
    checkpointing = "yes" if option["grad_checkpointing"] else "no"
    return [mark, option["strategy"], checkpointing, f"{option['micro_batch']}x{option['accumulation_steps']}"]


def _times(option: Mapping[str, Any]) -> list[str]:
    seconds, sent = option["seconds"], option["communication"]
    values = (seconds["step"], seconds["epoch"] / 60, seconds["run"] / 3600)
    shown = [f"{value:.3g}" if value < 100 else f"{value:,.0f}" for value in values]
    return [*shown, f"{sent['bytes'] / 1e9:.2f}", f"{sent['seconds']:.3f}"]


def _fastest(plan: Mapping[str, Any], choice: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the tables do not tell of the fastest way."""
    memory = choice["memory"]
    rows = [
        ("run", f"{duration(choice['seconds']['run'])}, without evaluations"),
        (
            "evaluation",
            f"{choice['eval_batch']} images per batch, {_gib(memory['evaluation'])} GiB in place of grads and activ",
        ),
        ("checkpoint", f"{plan['model']['checkpoint_bytes'] / 1e9:.2f} GB"),
    ]
    if memory["host"]:
        rows.append(("host memory", f"{_gib(memory['host'])} GiB for each process"))
    return rows


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size < 10 * GIB else f"{size / GIB:.1f}"
