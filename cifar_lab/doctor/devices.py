"""The checks of what torch finds on this machine."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from cifar_lab.doctor.check import Check
from cifar_lab.doctor.packages import SET_UP
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.nvidia import findings

GIB = 2**30
# How far losses of the same step may lie apart; in bf16 and TF32 they differ in the third digit.
LOSS = 0.05


def device_checks(found: dict[str, Any], *, nproc: int, recipe: Recipe | None) -> Iterator[Check]:
    """`found` is what the program said, `nproc` the processes on this node."""
    if "torch" not in found:
        fix = f"install torch again ({SET_UP}), or look at the file system if it was only slow"
        yield Check("torch", "FAIL", f"cannot be imported: {found.get('error', 'no answer')}", fix)
        return
    yield Check("torch", "ok", f"{found['torch']}, {'CUDA ' + found['cuda'] if found['cuda'] else 'no CUDA'}")
    if found["devices"]:
        yield from _gpu_checks(found, nproc, recipe)
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
        fix = "nothing to do if you want that; else run on a node with GPUs (Slurm: --gpus-per-node)"
        yield Check("GPU", "warning", says, fix)
    processes = "1 process" if nproc == 1 else f"{nproc} processes"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("CPU", "ok", f"{cores} cores for {processes}")
    yield from _step_checks(found, {"the CPU": found.get("cpu", {})}, recipe)


def _gpu_checks(found: dict[str, Any], nproc: int, recipe: Recipe | None) -> Iterator[Check]:
    devices = {f"GPU {number}": device for number, device in enumerate(found["devices"])}
    kinds = {device["name"] + f" {device.get('memory', 0) / GIB:.0f} GiB" for device in devices.values()}
    yield Check("GPU", "ok", f"{len(devices)} x {', '.join(sorted(kinds)).replace(' 0 GiB', '')}")
    if nproc > len(devices):
        says = f"{nproc} processes for {len(devices)} GPUs"
        yield Check("GPU count", "FAIL", says, f"--nproc {len(devices)}")
    for label, device in devices.items():
        if "free" in device and device["free"] < 0.9 * device["memory"]:
            says = f"{label}: only {device['free'] / GIB:.1f} of {device['memory'] / GIB:.1f} GiB are free"
            yield Check("GPU memory", "warning", says, "see with nvidia-smi who uses the rest, or choose other GPUs")
    judged = {(device["name"], tuple(device["capability"])) for device in devices.values() if "capability" in device}
    told = [each for kind in sorted(judged) for each in findings(*kind, found["archs"], found["torch"], recipe)]
    yield from (Check("GPU use", "FAIL" if each.fatal else "warning", each.says, each.fix) for each in told)
    if not any(each.fatal for each in told):  # else what fails now is a consequence
        yield from _step_checks(found, devices, recipe)


def _step_checks(
    found: dict[str, Any], devices: Mapping[str, dict[str, Any]], recipe: Recipe | None
) -> Iterator[Check]:
    """A training step on each device, whose loss must be the CPU's."""
    good, fix = [], "look at nvidia-smi and dmesg; CUDA_VISIBLE_DEVICES leaves a device out"
    for label, device in devices.items():
        if "seconds" not in device:  # one that ended the program has no problem of its own
            yield Check("step", "FAIL", f"{label}: {device.get('problem') or found.get('error', 'no answer')}", fix)
        elif not abs(device["loss"] - found["cpu"].get("loss", device["loss"])) <= LOSS:  # NaN is not, either
            says = f"{label} computes the loss {device['loss']:.4f}, the CPU {found['cpu'].get('loss', 0):.4f}"
            yield Check("step", "FAIL", says, fix)
        else:
            good.append(f"{label} {device['seconds'] * 1e3:.1f} ms")
    if good:
        precision = recipe.train.precision if recipe else "fp32"
        yield Check("step", "ok", f"forward, backward and SGD in {precision}: {', '.join(good)}")


def _driver() -> str | None:
    """The driver as nvidia-smi tells it, None where there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        versions = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"NVIDIA driver {versions[0]}" if versions else None
