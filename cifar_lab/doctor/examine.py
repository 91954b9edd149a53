"""All checks of this node, and those of the other nodes of its job."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cifar_lab.doctor.check import Check
from cifar_lab.doctor.child import Child
from cifar_lab.doctor.devices import device_checks
from cifar_lab.doctor.disk import beacon, disk_checks, limit_checks, shared_check
from cifar_lab.doctor.inputs import Hub, data_check, weights_check
from cifar_lab.doctor.network import Links, all_reduces, find_links, share, share_checks
from cifar_lab.doctor.packages import package_checks
from cifar_lab.doctor.recipe import checkpoint_bytes, layout_checks
from cifar_lab.doctor.wandb_mode import wandb_check
from cifar_lab.recipe import Recipe

DEVICE_SECONDS = 120.0


def examine(options: argparse.Namespace, recipe: Recipe | None) -> tuple[Links, dict[str, list[Check]]]:
    """This node's place, and the checks of each host that could be heard."""
    arch = recipe.model.args.get("arch") if recipe and recipe.model.pretrained else None
    asking, begun = Child("devices", {"arch": arch}), time.monotonic()
    links = find_links(os.environ)
    runs = Path(options.run_dir or options.runs)
    extras = {"deepspeed"} if options.strategy != "ddp" else set()
    hub = Hub()
    needed = checkpoint_bytes(recipe) if recipe else None
    checks = [
        *_guarded("packages", lambda: package_checks(extras)),
        *links.checks,
        *_guarded("data", lambda: [data_check(recipe, hub)]),
        *_guarded("W&B", lambda: [wandb_check(recipe)]),
        *_guarded("disk", lambda: disk_checks(runs, needed)),
    ]
    found = asking.answer(begun + DEVICE_SECONDS)
    gpus = len(found.get("devices", []))
    nproc = options.nproc or max(1, gpus)
    bf16 = recipe is not None and recipe.train.precision == "bf16"
    checks += _guarded("torch", lambda: device_checks(found, nproc=nproc, bf16=bf16))
    checks += _guarded("limits", lambda: limit_checks(gpus=gpus))
    if recipe:
        how: dict[str, Any] = {"world_size": links.num_nodes * nproc, "strategy": options.strategy}
        checks += _guarded("weights", lambda: weights_check(recipe, found, hub))
        checks += _guarded("batch", lambda: layout_checks(recipe, device="cuda" if gpus else "cpu", **how))
    return links, _together(links, runs, gpus, checks)


def _together(links: Links, runs: Path, gpus: int, checks: list[Check]) -> dict[str, list[Check]]:
    """What only the nodes of a job together can find out, if they reach each other."""
    if links.meeting is None or links.node is None:
        return {links.host: checks}
    token = links.node.token
    try:
        if links.is_main:
            with suppress(OSError):  # a finding of the disk's check
                beacon(runs, token).touch()
        counts = share(links, [gpus])
        if counts is None:
            checks.append(Check("nodes", "FAIL", "the others were lost meanwhile", "look at what they say"))
            return {links.host: checks}
        if not links.is_main:
            checks += _guarded("shared runs", lambda: [shared_check(runs, token)])
        backends = ("gloo", "nccl") if all(count for (count,) in counts.values()) else ("gloo",)
        checks += _guarded("all-reduce", lambda: all_reduces(links, backends))
        return share_checks(links, checks)
    finally:
        if links.is_main:
            with suppress(OSError):
                beacon(runs, token).unlink()


def _guarded(name: str, work: Callable[[], Iterable[Check]]) -> list[Check]:
    """What `work` finds; that it fails itself is a finding too, and must not keep the others from theirs."""

    def found() -> Iterator[Check]:
        try:
            yield from work()
        except Exception as error:
            says = f"the check itself failed: {type(error).__name__}: {error}"
            yield Check(name, "warning", says, "look at what it names, and report it")

    return list(found())
