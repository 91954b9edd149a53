"""A plan as text, no line of which is wider than 80 columns but the command to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cifar_lab.cli.table import table
from cifar_lab.planning.hardware import GIB

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
TIMES = ("s/step", "min/epoch", "h/run", "GB sent", "s comm")


def render(plan: Mapping[str, Any]) -> str:
    """Model and set-up, memory and time of each way to run it, the assumptions, and the command of the fastest."""
    choice = plan["plans"][plan["choice"]]
    ways = [(_way(option, chosen=option is choice), option) for option in plan["plans"]]
    memory = [[*way, *(_gib(option["memory"][part]) for part in PARTS.values())] for way, option in ways]
    times = [[*way[:-1], *_times(option)] for way, option in ways]
    problems = [f"- {_named(option)}: {option['problem']}" for option in plan["plans"] if option["problem"]]
    return "\n\n".join(
        [
            table(_summary(plan)),
            "GiB on each GPU at the largest micro-batch that fits, * the fastest\n"
            + table(memory, ["", "strategy", "ckpt", "b x acc", *PARTS], numbers=PARTS, gap=1),
            "\n".join([table(times, ["", "strategy", "ckpt", *TIMES], numbers=TIMES), *problems]),
            table(_choice(plan, choice)),
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
        ("", f"{model['flops_per_image'] / 1e9:,.4g} GFLOP an image forward"),
        ("batch", f"{batch['global_batch']} images a step, {batch['steps_per_epoch']:,} steps an epoch"),
        ("on", where),
        *([("assumed", fixed)] if assumed["cuda_context_bytes"] else []),
        ("assumed", f"{assumed['fragmentation']:.0%} fragmentation, {assumed['memory_filled']:.0%} of memory usable"),
        ("assumed", f"{assumed['utilisation']:.0%} of the peak rate"),
    ]


def _way(option: Mapping[str, Any], *, chosen: bool) -> list[str]:
    mark = "*" if chosen else "-" if option["problem"] else ""
    checkpointing = "yes" if option["grad_checkpointing"] else "no"
    return [mark, option["strategy"], checkpointing, f"{option['micro_batch']}x{option['accumulation_steps']}"]


def _times(option: Mapping[str, Any]) -> list[str]:
    seconds, sent = option["seconds"], option["communication"]
    values = (seconds["step"], seconds["epoch"] / 60, seconds["run"] / 3600)
    return [*map(_short, values), f"{sent['bytes'] / 1e9:.2f}", f"{sent['seconds']:.3f}"]


def _named(option: Mapping[str, Any]) -> str:
    return str(option["strategy"]) + (" with gradient checkpointing" if option["grad_checkpointing"] else "")


def _choice(plan: Mapping[str, Any], choice: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory, seconds, sent = choice["memory"], choice["seconds"], choice["communication"]
    layout = f"{plan['world_size']} x {choice['accumulation_steps']} x micro-batch {choice['micro_batch']}"
    rows = [
        ("the fastest", f"{_named(choice)}: {layout}"),
        ("step", f"{_short(seconds['step'])} s for {choice['flops_per_step'] / 1e12:,.4g} TFLOP"),
        ("run", f"{_long(seconds['run'])}, {_long(seconds['epoch'])} an epoch, evaluation not counted"),
        ("evaluation", f"{choice['eval_batch']} images a batch, {_gib(memory['evaluation'])} GiB besides the state"),
        ("checkpoint", f"{plan['model']['checkpoint_bytes'] / 1e9:.2f} GB"),
    ]
    if sent["bytes"]:
        rows.insert(2, ("communication", f"{seconds['exposed_communication']:.3f} s not hidden, {sent['bottleneck']}"))
    if memory["host"]:
        rows.append(("host memory", f"{_gib(memory['host'])} GiB a process"))
    return rows


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _long(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size < 10 * GIB else f"{size / GIB:.1f}"
