"""Failures: what out of memory says, a kill in a save, and that a process that is cut off frees its memory."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import psutil
import torch
import yaml

from cifar_lab.errors import UserError
from cifar_lab.train import run
from cifar_lab.verify.kills import Trial, disturb
from gpu_checks.check import Found, Place, child_environment
from gpu_checks.deterministic import judge, recipe, train
from gpu_checks.runs import small

MIB = 2**20
STEPS = 150
TAKE = """
import os, torch
torch.ones(2**28, device="cuda").sum().item()
print("taken", flush=True)
input()
os._exit(9)
"""


def failures(place: Place, found: Found) -> None:
    """Out of memory comes last: the limit that it needs stays."""
    _kill_in_a_save(place, found)
    if place.device == "cuda":
        _cut_off(place, found)
    else:
        found.skip(f"memory after os._exit: not looked at on {place.device}")
    if place.device in ("cuda", "cpu"):
        _out_of_memory(place, found)
    else:
        found.skip(f"out of memory: cannot be forced on {place.device}")


def _kill_in_a_save(place: Place, found: Found) -> None:
    mapping = recipe(STEPS, 10)
    file = place.folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(mapping))
    begun = time.monotonic()
    train(mapping, place.folder, "undisturbed")
    trial = Trial(str(file), (), 1, place.folder)
    told = disturb(trial, "save", "all", random.Random(0), min(10.0, time.monotonic() - begun))
    if found.holds("a run is killed before it completes", told):
        found.note("killed", str(told))
        train(mapping, place.folder, "killed")
        judge(place.folder, found)


def _cut_off(place: Place, found: Found) -> None:
    """A process that holds a GiB leaves without a goodbye."""
    free = torch.cuda.mem_get_info()[0]
    with subprocess.Popen(
        [sys.executable, "-c", TAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(place)
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        held = free - torch.cuda.mem_get_info()[0]
        holder.communicate(b"\n", timeout=60)
    time.sleep(1.0)
    found.at_least("MiB held", held / MIB, 1000)
    found.at_most("MiB left behind", (free - torch.cuda.mem_get_info()[0]) / MIB, 64)


def _out_of_memory(place: Place, found: Found) -> None:
    """A batch that does not fit: the message names the batch that might."""
    if place.device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 512 * MIB) / total)
    else:
        import resource

        limit = psutil.Process().memory_info().vms + 1024 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    mapping = small(
        data__args={"num_train": 2048, "num_test": 10, "image_size": 32},
        model={"name": "resnet"},
        train={"steps": 1, "global_batch": 2048},
    )
    try:
        run(mapping, run_dir=str(place.folder / "large"))
        said = "nothing: it trained"
    except UserError as error:
        said = str(error)
    found.holds(f"out of memory is told with the way out: {said[:200]}", "set train.micro_batch=1024" in said)
    found.note("out of memory", said.partition(":")[0])
