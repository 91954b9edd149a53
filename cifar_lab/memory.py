"""Running out of memory, told as something to do."""

from __future__ import annotations

import torch

from cifar_lab.schedule import Schedule


def out_of_memory_advice(error: BaseException, schedule: Schedule | None) -> str | None:
    """What to change when `error` is an allocation that failed; None when it is something else."""
    allocator = isinstance(error, RuntimeError) and "allocate memory" in str(error)  # PyTorch's allocator on CPUs
    if not (allocator or isinstance(error, (torch.OutOfMemoryError, MemoryError))):
        return None
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    if schedule is None:
        return f"out of memory while the data and the model were loaded ({first_line})"
    smaller = [b for b in range(1, schedule.micro_batch) if schedule.micro_batch % b == 0]
    advice = (
        f"set train.micro_batch={smaller[-1]} (it was {schedule.micro_batch}; the global batch does not change)"
        if smaller
        else "a single picture does not fit: use more processes with ZeRO, or a smaller data.image_size"
    )
    return f"out of memory ({first_line}): {advice}, or train.grad_checkpointing=true"
