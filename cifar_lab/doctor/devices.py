"""The checks of what torch finds on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

from cifar_lab.doctor.check import Check

GIB = 2**30


def device_checks(found: dict[str, Any], *, nproc: int, bf16: bool) -> Iterator[Check]:
    """`found` is what the program said, `nproc` the processes on this node, `bf16` whether the recipe asks for it."""
    if "torch" not in found:
        fix = "install torch again (scripts/setup), or look at the file system if it was only slow"
        yield Check("torch", "FAIL", f"cannot be imported: {found.get('error', 'no answer')}", fix)
        return
    yield Check("torch", "ok", f"{found['torch']}, {'CUDA ' + found['cuda'] if found['cuda'] else 'no CUDA'}")
    if found["devices"]:
        yield from _gpu_checks(found["devices"], nproc, bf16)
        return
    driver = _driver()
    if driver and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        fix = (
            "install the torch that fits the driver (https://pytorch.org/get-started/locally), or update the driver"
            if found["cuda"]
            else "install a torch with CUDA (https://pytorch.org/get-started/locally)"
        )
        yield Check("GPU", "FAIL", f"{driver} is there but torch cannot use it: {found.get('cuda_error') or '?'}", fix)
    elif found["cuda"]:
        says = "torch is built for CUDA, but there is no driver or no visible GPU: training runs on the CPU"
        fix = "nothing if that is meant; else run on a node with GPUs (Slurm: --gpus-per-node)"
        yield Check("GPU", "warning", says, fix)
    processes = "1 process" if nproc == 1 else f"{nproc} processes"
    yield Check("CPU", "ok", f"{len(os.sched_getaffinity(0))} cores for {processes}")


def _gpu_checks(devices: list[dict[str, Any]], nproc: int, bf16: bool) -> Iterator[Check]:
    kinds = sorted({f"{device['name']} {device['memory'] / GIB:.0f} GiB" for device in devices})
    yield Check("GPU", "ok", f"{len(devices)} x {', '.join(kinds)}")
    if nproc > len(devices):
        says = f"{nproc} processes for {len(devices)} GPUs"
        yield Check("GPU count", "FAIL", says, f"--nproc {len(devices)}")
    for number, device in enumerate(devices):
        if device["free"] < 0.9 * device["memory"]:
            says = f"GPU {number}: only {device['free'] / GIB:.1f} of {device['memory'] / GIB:.1f} GiB are free"
            yield Check("GPU memory", "warning", says, "see with nvidia-smi who uses the rest, or choose other GPUs")
    if bf16 and not all(device["bf16"] for device in devices):
        yield Check("bf16", "warning", "this GPU computes bf16 slowly, in software", "train.precision=fp16")


def _driver() -> str | None:
    """The driver as nvidia-smi tells it, None where there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        versions = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"NVIDIA driver {versions[0]}" if versions else None
