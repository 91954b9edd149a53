"""Which builds of torch have kernels for a GPU, and what is said before the first step."""

from __future__ import annotations

import platform
from typing import Any

import pytest
from support.small import small

from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.nvidia import PYPI, findings, has_kernels

CUDA_12_6 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((7, 0), PYPI, False),  # V100
        ((6, 0), PYPI, False),  # P100
        ((7, 0), CUDA_12_6, True),
        ((6, 1), CUDA_12_6, True),  # a GTX 1080, by sm_60
        ((7, 5), PYPI, True),  # T4
        ((7, 2), ["sm_75"], False),  # within a major version not backwards
        ((8, 9), PYPI, True),  # L4, by sm_86
        ((8, 0), ["sm_86"], False),
        ((9, 0), PYPI, True),
        ((9, 0), ["sm_86"], False),  # no machine code crosses a major version
        ((12, 0), CUDA_12_6, False),  # Blackwell
        ((12, 1), PYPI, True),
        ((10, 3), PYPI, True),
        ((12, 0), [*CUDA_12_6, "compute_90"], True),  # PTX is compiled for all that is later
        ((8, 6), ["compute_80"], True),
        ((7, 5), ["compute_80"], False),  # and for nothing earlier
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 0), ["compute_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((11, 0), ["compute_100f"], False),
        ((9, 0), ["gfx90a", "gfx942"], True),  # ROCm's are not judged
        ((7, 0), [], True),
    ],
)
def test_has_kernels(capability, archs, runs) -> None:
    assert has_kernels(capability, archs) is runs


def said(capability: tuple[int, int], archs=CUDA_12_6, **train: Any) -> list[tuple[bool, str]]:
    changes = {f"train__{key}": value for key, value in train.items()}
    found = findings("Tesla", capability, archs, "2.14.1", parse_recipe(small(**changes)))
    return [(finding.fatal, str(finding)) for finding in found]


@pytest.mark.parametrize(
    ("capability", "archs", "fix"),
    [
        ((7, 0), PYPI, "'torch<2.15' torchvision --index-url https://download.pytorch.org/whl/cu126"),
        ((6, 0), PYPI, "whl/cu126"),
        ((5, 2), PYPI, "whl/cu126"),
        ((12, 0), CUDA_12_6, "torch torchvision --index-url https://download.pytorch.org/whl/cu130"),
        ((13, 0), PYPI, "install a newer torch"),
        ((3, 7), PYPI, "train on the CPU with CUDA_VISIBLE_DEVICES=''"),
    ],
)
def test_the_wheel_that_fits_is_named(capability, archs, fix) -> None:
    ((fatal, text),) = said(capability, archs)
    assert fatal
    number = ".".join(map(str, capability))
    built = f"it was built for {' '.join(archs)}"
    assert text.startswith(f"torch 2.14.1 has no kernels for Tesla (compute capability {number}): {built}; ")
    assert fix in text
    if "whl" in fix:
        # pip takes 2.14.1+cu130 for torch<2.15 and would leave it.
        assert "pip install --force-reinstall" in text
        assert has_kernels(capability, CUDA_12_6 if "cu126" in fix else PYPI)


def test_what_a_recipe_asks_of_an_old_gpu() -> None:
    for capability in ((8, 0), (8, 9), (9, 0)):
        assert said(capability, precision="bf16", compile=True) == []
    assert said((7, 5)) == said((7, 0)) == said((6, 0)) == []
    ((fatal, text),) = said((7, 5), precision="bf16", compile=True)
    assert not fatal
    assert "Tesla (compute capability 7.5) computes bf16 in software" in text
    assert text.endswith("; set train.precision=fp16, which is fast there, or train.precision=fp32")
    (compiled, emulated) = said((6, 0), precision="bf16", compile=True)
    assert compiled[0]
    assert compiled[1].endswith("only from 7.0 on; set it to false")
    assert emulated[1].endswith("; set train.precision=fp32")  # Pascal's GeForces are slow in fp16, too
    assert list(findings("Tesla", (7, 5), PYPI, "2.14.1")) == []


def test_the_list_of_the_wheels_is_that_of_this_one() -> None:
    import torch

    if "+cu130" not in torch.__version__ or platform.machine() != "x86_64":
        pytest.skip("another build of torch")
    assert tuple(torch._C._cuda_getArchFlags().split()) == PYPI  # get_arch_list of torch 2.11 needs a GPU
