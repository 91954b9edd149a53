"""Joining the processes of this launch, under the strategy that the launcher asks for."""

from __future__ import annotations

import importlib.util
import os

import torch

from cifar_lab.errors import UsageError, UserError
from cifar_lab.runtime.world import World

# Accelerate's DeepSpeed path imports transformers.
OF_THE_EXTRA = ("deepspeed", "transformers")


def start_world(timeout: float | None = None) -> World:
    """World.start, with DeepSpeed made ready if `accelerate launch` asks for it. Raises UsageError."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true":
        return World.start(timeout)
    missing = [name for name in OF_THE_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the launch asks for DeepSpeed, but {' and '.join(missing)} cannot be found: pip install "
            "'cifar-lab[deepspeed]', or use accelerate_configs/ddp.yaml, which does without"
        )
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it guessed
    from cifar_lab.runtime.zero import prepare_deepspeed

    prepare_deepspeed()
    try:
        return World.start(timeout)
    except UserError:
        raise
    except ValueError as error:
        raise UsageError(f"accelerate refuses the DeepSpeed configuration: {error}") from error
