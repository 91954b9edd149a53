"""Memory: what `cifar-lab plan` says that a recipe needs, against what training takes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import torch

from cifar_lab.planning.footprint import known_sizes, model_footprint
from cifar_lab.planning.memory import CUDA_CONTEXT, Layout
from cifar_lab.planning.memory import memory as planned
from cifar_lab.recipe import load_recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.train import run
from gpu_checks.check import ROOT, Found, Place, child_environment

MIB = 2**20
# Recipes and what is changed in them.
ROWS: tuple[tuple[str, str], ...] = (
    ("resnet18", "train.precision=bf16"),
    ("vit_tiny", "model.pretrained=false train.global_batch=128 eval.batch=128"),
)
LONG_ROWS = (("eva02_large", "model.pretrained=false train.global_batch=8 eval.batch=8"),)
# Of the plan, without the context. One that says too little ends in "out of memory".
LEAST, MOST = 0.5, 1.1


def memory(place: Place, found: Found) -> None:
    """Peak of what the allocator reserved, and the context beside it."""
    if place.on_cpu:
        _on_cpu(place, found)
        return
    if place.device != "cuda":
        found.skip(f"{place.device} does not tell its peak")
        return
    for recipe, changes in (*ROWS, *(LONG_ROWS if place.long else ())):
        if recipe != "resnet18" and importlib.util.find_spec("timm") is None:
            found.skip(f"{recipe}: timm is not installed")
            continue
        overrides = [*changes.split(), "train.steps=3", "train.epochs=null", "tracking.wandb_project=null"]
        overrides += ["data.name=shapes", "data.val_size=0", "optim.warmup_epochs=0"]
        parsed = load_recipe(ROOT / "recipes" / f"{recipe}.yaml", overrides)
        sizes = known_sizes(parsed)
        batch = Schedule.make(parsed, sizes.num_train, 1).micro_batch
        layout = Layout("single", parsed.train.grad_checkpointing, 1, batch, parsed.eval.batch)
        plan = planned(model_footprint(parsed, sizes), parsed, sizes, layout).total - CUDA_CONTEXT
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run(parsed, run_dir=str(place.folder / recipe))
        reserved = torch.cuda.max_memory_reserved()
        found.note(f"{recipe} MiB", reserved / MIB)
        found.at_most(f"{recipe} over plan", reserved / plan, MOST)
        found.at_least(f"{recipe} of plan", reserved / plan, LEAST)
    free, total = torch.cuda.mem_get_info()
    found.note("context and other programs MiB", (total - free - torch.cuda.memory_reserved()) / MIB)


def _on_cpu(place: Place, found: Found) -> None:
    """One row of benchmarks/plan_memory.py, which measures resident memory in processes of its own."""
    command = [sys.executable, str(ROOT / "benchmarks" / "plan_memory.py"), "--rows", "resnet18_128"]
    done = subprocess.run(
        command, env=child_environment(place), capture_output=True, text=True, timeout=250, check=False
    )
    print(done.stdout, done.stderr, sep="\n")
    if found.holds("benchmarks/plan_memory.py ends", done.returncode in (0, 1) and done.stdout):
        row = json.loads(done.stdout.strip().splitlines()[-1])["resnet18_128"]
        found.note("resnet18 MiB", row["measured"] / MIB)
        found.at_most("plan off by", abs(row["error"]), 0.15)
