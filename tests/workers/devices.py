"""Joins the world of a launch where torch is told of `sys.argv[1]` GPUs, and says on what device and of how many."""

from __future__ import annotations

import argparse
import sys

import torch

from cifar_lab.cli.command import answer
from cifar_lab.runtime.start import start_world


def main(_: argparse.Namespace) -> int:
    with start_world(60) as world:
        total = int(world.sum_(torch.ones(1, device=world.device)))
        print(f"{world.device}, {total} of {world.world_size}", flush=True)
    return 0


devices = int(sys.argv[1])
torch.accelerator.is_available = lambda: devices > 0  # type: ignore[method-assign]
torch.accelerator.device_count = lambda: devices  # type: ignore[assignment]
torch.accelerator.current_accelerator = lambda *_, **__: torch.device("cuda")  # type: ignore[assignment]
sys.exit(answer(argparse.ArgumentParser(), main, []))
