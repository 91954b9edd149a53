"""All checks of this node, and those of the other nodes of its job."""

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
from cifar_lab.doctor.disk import beacon, disk_checks, shared_check
from cifar_lab.doctor.network import SECONDS_BETWEEN, Links, all_reduce, find_links
from cifar_lab.doctor.packages import package_checks
from cifar_lab.doctor.recipe import checkpoint_bytes, data_check, layout_checks, weights_check
from cifar_lab.doctor.wandb_mode import wandb_check
from cifar_lab.recipe import Recipe

DEVICE_SECONDS = 120.0


def examine(options: argparse.Namespace, recipe: Recipe | None) -> tuple[Links, dict[str, list[Check]]]:
    """This node's place, and the checks of each host that could be heard."""
    arch = (recipe.model.name, recipe.model.args.get("arch")) if recipe and recipe.model.pretrained else None
    precision = recipe.train.precision if recipe else "fp32"
    extras = {"deepspeed"} if options.strategy.startswith("zero") else set()
    runs = Path(options.run_dir or options.runs)
    with ThreadPoolExecutor(1) as pool:
        # torch takes its time, beside what follows.
        asking = pool.submit(ask, {"arch": arch, "precision": precision}, DEVICE_SECONDS)
        with find_links(os.environ) as links:
            checks = [
                *_guarded("packages", lambda: package_checks(extras)),
                *links.checks,
                *_guarded("data", lambda: [data_check(recipe)]),
                *_guarded("W&B", lambda: [wandb_check(recipe)]),
                *_guarded("disk", lambda: disk_checks(runs, checkpoint_bytes(recipe) if recipe else None)),
            ]
            found = asking.result()
            gpus, kind = len(found.get("devices", [])), found.get("kind", "cpu")
            nproc = options.nproc or max(1, gpus)
            checks += _guarded("torch", lambda: device_checks(found, nproc=nproc, recipe=recipe))
            if recipe:
                checks += _guarded("weights", lambda: weights_check(recipe, found))
                how = (links.num_nodes * nproc, options.strategy, kind)
                checks += _guarded("batch", lambda: layout_checks(recipe, *how))
            backend = found.get("backend") or ""  # none on mps
            devices = [f"{kind}:{gpu}" for gpu in range(min(nproc, gpus)) if backend]
            return links, _together(links, runs, backend, devices, checks)


def _together(
    links: Links, runs: Path, backend: str, devices: list[str], checks: list[Check]
) -> dict[str, list[Check]]:
    """What only the nodes of a job, or the GPUs of one, together can find out, if they reach each other."""
    met = links.meeting
    if met is None:
        if links.num_nodes == 1 and len(devices) > 1:
            checks += _guarded("all-reduce", lambda: [all_reduce(backend, devices, [len(devices)])])
        return {links.host: checks}
    mark = beacon(runs, met.node.token)
    try:
        if links.is_main:
            with suppress(OSError):  # a finding of the disk's check
                mark.touch()
        counts = met.gather("gpus", len(devices), SECONDS_BETWEEN)
        if not links.is_main:
            checks += _guarded("shared runs", lambda: [shared_check(mark)])
        checks += _guarded("all-reduce", lambda: [all_reduce("gloo", ["cpu"], [1] * len(counts), met)])
        if all(counts):
            checks += _guarded("all-reduce", lambda: [all_reduce(backend, devices, counts, met)])
        shared = met.gather("checks", [asdict(check) for check in checks], SECONDS_BETWEEN)
        return {card.host: [Check(**check) for check in found] for card, found in zip(met.cards, shared, strict=True)}
    except MeetingError as error:
        return {links.host: [*checks, Check("nodes", "FAIL", str(error), "see what the other checks say")]}
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
            yield Check(name, "warning", says, "see what it names, and report it")

    return list(found())
