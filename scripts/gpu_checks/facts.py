"""Facts: what this machine has, and one kernel of each kind run."""

from __future__ import annotations

import subprocess

import psutil
import torch
import torch.nn.functional as F

from cifar_lab.recipe.nvidia import findings
from gpu_checks.check import Found, Place

GIB = 2**30


def facts(place: Place, found: Found) -> None:
    """Driver, architecture, bf16, flags, memory, and a matrix product and a convolution against float64."""
    if place.device == "cuda":
        _cuda_facts(found)
    else:
        found.skip(f"driver, capability, bf16: no CUDA on {place.device}")
        found.note("memory GiB", psutil.virtual_memory().total / GIB)
        found.note("threads", torch.get_num_threads())
    _kernels(torch.device(place.device), found)


def _cuda_facts(found: Found) -> None:
    capability = torch.cuda.get_device_capability()
    found.note("driver", _driver())
    found.note("capability", ".".join(map(str, capability)))
    if torch.version.cuda is not None:
        known = findings(torch.cuda.get_device_name(), capability, torch.cuda.get_arch_list(), torch.__version__)
        found.problems += map(str, known)
    found.note("native bf16", "yes" if torch.cuda.is_bf16_supported(including_emulation=False) else "no")
    found.note("TF32 in convolutions", str(torch.backends.cudnn.conv.fp32_precision))
    found.note("TF32 in products", str(torch.backends.cuda.matmul.fp32_precision))
    free, total = torch.cuda.mem_get_info()
    found.note("memory GiB", total / GIB)
    found.at_least("free part", free / total, 0.5)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "nvidia-smi says nothing"


def _kernels(device: torch.device, found: Found) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(256, 512), torch.randn(512, 128)
    images, weight = torch.randn(4, 16, 20, 20), torch.randn(32, 16, 3, 3)
    cases = {
        "product": (a.to(device) @ b.to(device), a.double() @ b.double()),
        "convolution": (F.conv2d(images.to(device), weight.to(device)), F.conv2d(images.double(), weight.double())),
    }
    for name, (result, expected) in cases.items():
        difference = ((result.cpu().double() - expected).norm() / expected.norm()).item()
        # Before the trainer has set anything, torch may round to TF32: ten bits.
        found.at_most(f"{name} error", difference, 2e-3)
