"""Joins the world of a launch where torch is told of `sys.argv[1]` GPUs, and says on what device and of how many."""

from __future__ import annotations

import os
import sys

import torch

from cifar_lab.errors import UserError
from cifar_lab.runtime.start import start_world

devices = int(sys.argv[1])
torch.accelerator.is_available = lambda: devices > 0  # type: ignore[method-assign]
torch.accelerator.device_count = lambda: devices  # type: ignore[assignment]
torch.accelerator.current_accelerator = lambda *_, **__: torch.device("cuda")  # type: ignore[assignment]
try:
    world = start_world(60)
except UserError as error:
    print(f"refused: {error}", flush=True)
    os._exit(error.exit_status)
total = int(world.sum_(torch.ones(1, device=world.device)))
print(f"{world.device}, {total} of {world.world_size}", flush=True)
world.close()
