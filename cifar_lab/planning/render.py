"""A plan as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GIB = 2**30
PARTS = ("parameters", "gradients", "optimizer", "ema", "activations", "data", "workspace")


def render(plan: Mapping[str, Any]) -> str:
    """Model and set-up, a line for each way to run it, the assumptions, and the command of the fastest."""
    choice = plan["plans"][plan["choice"]]
    rows = [_heading(), *(_row(option, option is choice) for option in plan["plans"])]
    return "\n".join(
        [
            *_columns(_summary(plan)),
            "",
            "GiB on each GPU at the largest micro-batch that fits, * the fastest",
            *_columns(rows),
            *(_problem(option) for option in plan["plans"] if option["problem"]),
            "",
            *_columns(_choice(plan, choice)),
            "",
            choice["command"],
        ]
    )


def _summary(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, batch, assumed, gpu = plan["model"], plan["batch"], plan["assumptions"], plan["gpu"]
    nodes = f"{plan['nodes']} nodes of " if plan["nodes"] > 1 else ""
    links = ", ".join(f"{name} {where} a node" for where, name in _link_words(plan["links"]))
    flops = model["flops_per_image"] / 1e9
    fixed = f"CUDA context {_gib(assumed['cuda_context_bytes'])} GiB, NCCL {_gib(assumed['nccl_bytes'])} GiB, "
    return [
        ("model", f"{plan['recipe']}: {model['num_parameters']:,} parameters, {flops:,.4g} GFLOP an image forward"),
        ("batch", f"{batch['global_batch']} images a step, {batch['steps_per_epoch']:,} steps an epoch"),
        ("on", f"{nodes}{plan['gpus']} x {gpu['name']}{', ' if links else ''}{links}"),
        (
            "assumed",
            f"{fixed if assumed['cuda_context_bytes'] else ''}{assumed['fragmentation']:.0%} fragmentation, "
            f"{assumed['utilisation']:.0%} of the peak rate, {assumed['memory_filled']:.0%} of the memory usable",
        ),
    ]


def _link_words(links: Mapping[str, str | None]) -> Iterable[tuple[str, str]]:
    words = {"inside": "inside", "between": "from"}
    return ((words[where], name) for where, name in links.items() if name)


def _heading() -> list[str]:
    short = ["params", "grads", "optim", "ema", "activ", "data", "work"]
    return ["", "strategy", "ckpt", "b x acc", *short, "total", "s/step", "min/epoch", "h/run", "GB sent", "s comm"]


def _row(option: Mapping[str, Any], chosen: bool) -> list[str]:
    memory, seconds, sent = option["memory"], option["seconds"], option["communication"]
    return [
        "*" if chosen else "-" if option["problem"] else "",
        option["strategy"],
        "yes" if option["grad_checkpointing"] else "no",
        f"{option['micro_batch']}x{option['accumulation_steps']}",
        *(_gib(memory[part]) for part in PARTS),
        _gib(memory["total"]),
        _seconds(seconds["step"]),
        _short(seconds["epoch"] / 60),
        _short(seconds["run"] / 3600),
        f"{sent['bytes'] / 1e9:.2f}",
        f"{sent['seconds']:.3f}",
    ]


def _problem(option: Mapping[str, Any]) -> str:
    checkpointing = " with gradient checkpointing" if option["grad_checkpointing"] else ""
    return f"- {option['strategy']}{checkpointing}: {option['problem']}"


def _choice(plan: Mapping[str, Any], choice: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory, seconds, sent = choice["memory"], choice["seconds"], choice["communication"]
    layout = (
        f"{choice['strategy']}{' with' if choice['grad_checkpointing'] else ' without'} gradient checkpointing: "
        f"{plan['world_size']} x {choice['accumulation_steps']} x micro-batch {choice['micro_batch']}"
    )
    rows = [
        ("the fastest", layout),
        ("step", f"{_seconds(seconds['step'])} s for {choice['flops_per_step'] / 1e12:,.4g} TFLOP"),
        ("run", f"{_long(seconds['run'])}, {_long(seconds['epoch'])} an epoch, evaluation not counted"),
        ("evaluation", f"{choice['eval_batch']} images a batch, {_gib(memory['evaluation'])} GiB besides the state"),
        ("checkpoint", f"{plan['model']['checkpoint_bytes'] / 1e9:.2f} GB"),
    ]
    if sent["bytes"]:
        alone = f"{sent['seconds']:.3f} s alone, {seconds['exposed_communication']:.3f} s not hidden"
        rows.insert(2, ("communication", f"{sent['bytes'] / 1e9:.2f} GB sent over {sent['bottleneck']}: {alone}"))
    if memory["host"]:
        rows.append(("host memory", f"{_gib(memory['host'])} GiB a process"))
    return rows


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _long(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
