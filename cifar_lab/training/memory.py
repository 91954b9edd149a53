"""Running out of memory, told as something to do."""

from __future__ import annotations

import traceback

import torch

from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule, mixes

# What the allocators of PyTorch, oneDNN and C++ say on CPUs, where no exception of their own is raised.
_CPU_ALLOCATORS = ("allocate memory", "not enough memory", "could not create a memory", "bad_alloc")


def out_of_memory_advice(error: BaseException, recipe: Recipe, schedule: Schedule | None) -> str | None:
    """What to change when `error` is an allocation that failed; None when it is something else."""
    allocator = isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_ALLOCATORS)
    if not (allocator or isinstance(error, (torch.OutOfMemoryError, MemoryError))):
        return None
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    if schedule is None:
        return f"out of memory while the data and the model were loaded ({first_line})"
    if _in_evaluation(error) and recipe.eval.batch > 1:
        smaller = max(1, recipe.eval.batch // 2)
        return f"out of memory in an evaluation ({first_line}): set eval.batch={smaller} (it was {recipe.eval.batch})"
    unit = 2 if mixes(recipe.data.augment) else 1
    fitting = [b for b in range(unit, schedule.micro_batch, unit) if schedule.micro_batch % b == 0]
    advice = (
        f"set train.micro_batch={fitting[-1]} (it was {schedule.micro_batch}; the global batch does not change)"
        if fitting
        else "a single micro-batch does not fit: use more processes with ZeRO, or a smaller data.image_size"
    )
    return f"out of memory ({first_line}): {advice}, or train.grad_checkpointing=true"


def _in_evaluation(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "cifar_lab.training.evaluation" for frame, _ in frames)
