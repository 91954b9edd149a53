"""Speed: pictures a second of the trainer's own loop, and over a bare PyTorch loop of the same net and pictures."""

from __future__ import annotations

import copy
import importlib.util
import sys
import time
from typing import Any

import torch

from cifar_lab.errors import UserError
from cifar_lab.optim.groups import make_optimizer
from cifar_lab.recipe import RecipeError, load_recipe
from cifar_lab.runtime.device import synchronize
from cifar_lab.runtime.world import World
from cifar_lab.training.loop import fit
from cifar_lab.training.session import Session
from gpu_checks.check import ROOT, Found, Place
from gpu_checks.runs import make_world, session

# Name, recipe, and what is changed in it; on CPUs a batch and steps that take seconds.
RESNET = "resnet18"
WAYS: tuple[tuple[str, str, str], ...] = (
    ("resnet18 fp32", RESNET, "train.precision=fp32 train.tf32=false"),
    ("resnet18 TF32", RESNET, "train.precision=fp32 train.tf32=true"),
    ("resnet18 bf16", RESNET, "train.precision=bf16"),
    ("resnet18 bf16 compiled", RESNET, "train.precision=bf16 train.compile=true"),
    ("vit_tiny 224", "vit_tiny", "model.pretrained=false"),
    ("speedrun94", "speedrun94", ""),
)
ON_CPU = ("resnet18 fp32", "resnet18 bf16")
CPU_SIZE = "model.args.width=16 train.global_batch=32 optim.warmup_epochs=0"
WARM_UP, STEPS, LONG_STEPS, CPU_STEPS = 10, 50, 300, 12
# Of the bare loop's pace; on busy CPUs the two meet different loads.
PART, PART_ON_CPU = 0.9, 0.5
# Of the speed run on drawn pictures, from 2.3; not measured.
LOSS_REACHED = 2.1


def speed(place: Place, found: Found) -> None:
    """Each way of training for some steps; with `--long` more of them."""
    world = make_world(place.device)
    sys.path.append(str(ROOT / "benchmarks"))
    for name, recipe, changes in WAYS:
        if place.on_cpu and name not in ON_CPU:
            continue
        if name == "resnet18 TF32" and place.device != "cuda":
            found.skip(f"{name}: {place.device} has none")
        elif recipe == "vit_tiny" and importlib.util.find_spec("timm") is None:
            found.skip(f"{name}: timm is not installed")
        else:
            _measure(name, recipe, changes.split(), world, place, found)
    if place.on_cpu:
        found.skip("TF32, compiled, vit_tiny and speedrun94: too slow on CPUs")


def _measure(name: str, recipe: str, changes: list[str], world: World, place: Place, found: Found) -> None:
    timed = CPU_STEPS if place.on_cpu else LONG_STEPS if place.long else STEPS
    total = WARM_UP + timed
    overrides = [*changes, f"train.steps={total}", "train.epochs=null", "tracking.wandb_project=null"]
    overrides += ["data.name=shapes", "data.val_size=0", f"checkpoint.every_steps={10 * total}"]
    overrides += CPU_SIZE.split() if place.on_cpu else []
    try:
        parsed = load_recipe(ROOT / "recipes" / f"{recipe}.yaml", overrides)
        with session(parsed, place.folder / name.replace(" ", "-"), world) as made:
            bare = copy.deepcopy(made.engine.module)
            ours = _ours(made, total)
            theirs = _bare(made, bare, total)
            loss = made.run_dir.metrics()[-1]["loss"]
    except RecipeError as error:
        found.skip(f"{name}: {str(error).splitlines()[0]}")
        return
    except UserError as error:
        found.problems.append(f"{name}: {str(error).splitlines()[0]}")
        return
    pictures = timed * parsed.train.global_batch
    found.note(f"{name} images/s", pictures / ours)
    found.at_least(f"{name} over bare", theirs / ours, PART_ON_CPU if place.on_cpu else PART)
    if recipe == "speedrun94":
        found.at_most("speedrun94 loss", loss, LOSS_REACHED)


def _ours(made: Session, total: int) -> float:
    """Seconds of the steps after the warm-up, of `fit` itself."""
    update, seen = made.progress.update, {}

    def note(step: int, **values: Any) -> None:
        update(step, **values)
        if not values and step in (WARM_UP, total):
            synchronize(made.world.device)
            seen[step] = time.perf_counter()

    made.progress.update = note  # type: ignore[method-assign]
    assert fit(made)
    return float(seen[total] - seen[WARM_UP])


def _bare(made: Session, module: torch.nn.Module, total: int) -> float:
    """Seconds of as many steps of benchmarks/bare.py; a compiled net is measured against one that is not."""
    import bare  # type: ignore[import-not-found]

    recipe, device = made.recipe, made.world.device
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.train.precision)

    def net(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
            logits = module(images)
        return logits.float()

    def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = made.stream.micro_batch(step, 0)
        return batch.images, batch.labels

    optimizer = make_optimizer(module, recipe.optim)
    bare.train(net, optimizer, batch_of, range(WARM_UP))
    synchronize(device)
    start = time.perf_counter()
    bare.train(net, optimizer, batch_of, range(WARM_UP, total))
    synchronize(device)
    return time.perf_counter() - start
