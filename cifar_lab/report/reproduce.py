"""The command that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import cifar_lab
from cifar_lab.recipe import RecipeError, load_recipe
from cifar_lab.report.record import RunRecord, flat

CHECKOUT = Path(cifar_lab.__file__).resolve().parents[1]
# Where a run lies, what it logs and how often it saves does not change it; the rest is given.
LEFT_OUT = ("name", "data.root", "tracking.", "checkpoint.", "log.", "train.hang_timeout")


def command(run: RunRecord) -> str:
    """How to train this run again: the shipped recipe of its name with overrides, else its own recipe.yaml."""
    start = _launcher(run)
    shipped = shipped_recipe(run.name)
    if shipped is None or not run.recipe:
        own = run.path / "recipe.yaml"
        if own.is_relative_to(CHECKOUT):
            own = own.relative_to(CHECKOUT)  # as the shipped recipes are named
        return f"{start} {shlex.quote(str(own))} --fresh"
    path, recipe = shipped
    parts = [f"{key}={_value(value)}" for key, value in overrides(recipe, run.recipe).items()]
    return shlex.join([*start.split(), path, *parts, "--fresh"])


def _launcher(run: RunRecord) -> str:
    world_size = int(run.figure("world_size") or 1)
    strategy = run.word("strategy") or ""
    if strategy.startswith("zero"):
        config = f"--config_file accelerate_configs/{strategy}.yaml --num_processes {world_size}"
        return f"accelerate launch {config} -m cifar_lab.train"
    if world_size > 1:
        return f"torchrun --nproc-per-node {world_size} -m cifar_lab.train"
    return "cifar-lab train"


def overrides(shipped: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """What to change in the shipped recipe, both resolved."""
    before, after = flat(shipped), flat(run)
    changed = {key: value for key, value in after.items() if before.get(key) != value and not key.startswith(LEFT_OUT)}
    for section in ("data", "model"):
        prefix = f"{section}.args."
        if any(key.startswith(prefix) and key not in after for key in before):
            # A key cannot be taken away by an override of its own.
            changed = {key: value for key, value in changed.items() if not key.startswith(prefix)}
            part = run.get(section)
            changed[f"{section}.args"] = part.get("args", {}) if isinstance(part, Mapping) else {}
    return changed


def _value(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


@cache
def shipped_recipe(name: str) -> tuple[str, dict[str, Any]] | None:
    """Path and resolved content of the checkout's recipe of that name; None where there is none."""
    for folder in ("recipes", "recipes/strong"):
        path = CHECKOUT / folder / f"{name}.yaml"
        if "/" in name or not path.is_file():
            continue
        try:
            recipe = load_recipe(path, check_files=False)
        except RecipeError:
            continue
        if recipe.name == name:
            return f"{folder}/{name}.yaml", recipe.model_dump(mode="json")
    return None
