"""All checks of this node, and those of the other nodes of its job."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from cifar_lab.cluster.reach import MeetingError
from cifar_lab.doctor.check import Check
from cifar_lab.doctor.child import ask
from cifar_lab.doctor.devices import device_checks
from cifar_lab.doctor.disk import beacon, disk_checks, shared_check, shared_memory_check
from cifar_lab.doctor.network import Links, all_reduces, find_links
from cifar_lab.doctor.packages import package_checks
from cifar_lab.doctor.recipe import checkpoint_bytes, data_check, layout_checks, weights_check
from cifar_lab.doctor.wandb_mode import wandb_check
from cifar_lab.recipe import Recipe

DEVICE_SECONDS = 120.0


def examine(options: argparse.Namespace, recipe: Recipe | None) -> tuple[Links, dict[str, list[Check]]]:
    """This node's place, and the checks of each host that could be heard."""
    arch = recipe.model.args.get("arch") if recipe and recipe.model.pretrained else None
    extras = {"deepspeed"} if options.strategy != "ddp" else set()
    runs = Path(options.run_dir or options.runs)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, {"arch": arch}, DEVICE_SECONDS)  # torch takes its time, beside what follows
        with find_links(os.environ) as links:
            checks = [
                *_guarded("packages", lambda: package_checks(extras)),
                *links.checks,
                *_guarded("data", lambda: [data_check(recipe)]),
                *_guarded("W&B", lambda: [wandb_check(recipe)]),
                *_guarded("disk", lambda: disk_checks(runs, checkpoint_bytes(recipe) if recipe else None)),
            ]
            found = asking.result()
            gpus = len(found.get("devices", []))
            nproc = options.nproc or max(1, gpus)
            bf16 = recipe is not None and recipe.train.precision == "bf16"
            checks += _guarded("torch", lambda: device_checks(found, nproc=nproc, bf16=bf16))
            checks += _guarded("/dev/shm", lambda: shared_memory_check(gpus))
            if recipe:
                world_size, device = links.num_nodes * nproc, "cuda" if gpus else "cpu"
                checks += _guarded("weights", lambda: weights_check(recipe, found))
                checks += _guarded("batch", lambda: layout_checks(recipe, world_size, options.strategy, device))
            return links, _together(links, runs, gpus, checks)


def _together(links: Links, runs: Path, gpus: int, checks: list[Check]) -> dict[str, list[Check]]:
    """What only the nodes of a job together can find out, if they reach each other."""
    met = links.meeting
    if met is None:
        return {links.host: checks}
    mark = beacon(runs, met.node.token)
    try:
        if links.is_main:
            with suppress(OSError):  # a finding of the disk's check
                mark.touch()
        counts = links.share("gpus", gpus)
        if not links.is_main:
            checks += _guarded("shared runs", lambda: [shared_check(mark)])
        backends = ("gloo", "nccl") if all(counts.values()) else ("gloo",)
        checks += _guarded("all-reduce", lambda: all_reduces(met, backends))
        shared = links.share("checks", [asdict(check) for check in checks])
        return {host: [Check(**check) for check in found] for host, found in shared.items()}
    except MeetingError as error:
        return {links.host: [*checks, Check("nodes", "FAIL", str(error), "look at what the others say")]}
    finally:
        if links.is_main:
            with suppress(OSError):
                mark.unlink()


def _guarded(name: str, work: Callable[[], Iterable[Check]]) -> list[Check]:
    """What `work` finds; that it fails itself is a finding too, and must not keep the others from theirs."""

    def found() -> Iterator[Check]:
        try:
            yield from work()
        except Exception as error:
            says = f"the check itself failed: {type(error).__name__}: {error}"
            yield Check(name, "warning", says, "look at what it names, and report it")

    return list(found())
