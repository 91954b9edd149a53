"""What an NVIDIA GPU can do with a build of torch: run its kernels at all, and what a recipe asks of it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cifar_lab.recipe.schema import Recipe

# torch.cuda.get_arch_list() of the wheels on PyPI, and what an index at download.pytorch.org has from and up to.
PYPI = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CU126, CU130 = ((5, 0), (7, 2)), ((7, 5), (12, 9))
INDEX = "pip install --force-reinstall {} torchvision --index-url https://download.pytorch.org/whl/{}"


@dataclass(frozen=True)
class Finding:
    """What keeps a GPU from a recipe if it is `fatal`, or makes it slow there, and what to do about it."""

    says: str
    fix: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.says}; {self.fix}"


def has_kernels(capability: Sequence[int], archs: Sequence[str]) -> bool:
    """Whether a build for `archs` runs at a compute capability (CUDA C++ Programming Guide, "Compute Capabilities").

    Machine code sm_XY runs within its major version from XY on, PTX compute_XY on all that is later; code with the
    suffix "a" nowhere else. A build that names none of both (a CPU's, ROCm's) is not judged.
    """
    (major, minor), named = capability, [re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch) for arch in archs]
    builds = [(kind, int(x), int(y), suffix) for kind, x, y, suffix in (match.groups() for match in named if match)]
    return not builds or any(
        (x, y) == (major, minor)
        or (x == major and y < minor and suffix != "a")
        or (kind == "compute" and x < major and not suffix)
        for kind, x, y, suffix in builds
    )


def findings(
    name: str, capability: Sequence[int], archs: Sequence[str], torch: str, recipe: Recipe | None = None
) -> Iterator[Finding]:
    """What is to be known before the first step about a GPU, a build `torch` for `archs`, and a recipe if given."""
    gpu, capability = f"{name} (compute capability {'.'.join(map(str, capability))})", tuple(capability)
    if not has_kernels(capability, archs):
        yield Finding(
            f"torch {torch} has no kernels for {gpu}: it was built for {' '.join(archs)}", _wheel(capability), True
        )
    if recipe is None:
        return
    if recipe.train.compile and capability < (7, 0):
        yield Finding(f"train.compile: Triton makes no kernels for {gpu}, only from 7.0 on", "set it to false", True)
    if recipe.train.precision == "bf16" and capability < (8, 0):
        fast = "train.precision=fp16, which is fast there, or " if capability >= (7, 0) else ""
        says = f"train.precision: {gpu} computes bf16 in software, slower than fp32"
        yield Finding(says, f"set {fast}train.precision=fp32", False)


def _wheel(capability: tuple[int, ...]) -> str:
    """Where there is a build with kernels; that for CUDA 12.6 was last made for torch 2.14."""
    if CU126[0] <= capability <= CU126[1]:
        return INDEX.format("'torch<2.15'", "cu126")
    if CU130[0] <= capability <= CU130[1]:
        return INDEX.format("torch", "cu130")
    newer = "install a newer torch (https://pytorch.org/get-started/locally), or "
    return f"{newer if capability > CU130[1] else ''}train on the CPU with CUDA_VISIBLE_DEVICES=''"
