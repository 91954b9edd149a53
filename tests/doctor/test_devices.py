"""What the doctor says of the devices that torch finds: for real of the CPU, of GPUs by what a child would answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.small import small

from cifar_lab.doctor import child
from cifar_lab.doctor.check import Check
from cifar_lab.doctor.devices import device_checks
from cifar_lab.doctor.network import all_reduce
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.nvidia import PYPI

GIB = 2**30
STEP = {"loss": 2.3, "seconds": 0.0012}
A100 = {"name": "A100", "memory": 40 * GIB, "free": 39 * GIB, "capability": [8, 0], **STEP}
V100 = {"name": "V100", "memory": 16 * GIB, "free": 15 * GIB, "capability": [7, 0]}
T4 = {"name": "T4", "memory": 15 * GIB, "free": 14 * GIB, "capability": [7, 5], **STEP}
BF16 = parse_recipe(small(train__precision="bf16"))


def checks(*devices: dict[str, Any], nproc: int = 1, recipe=None, **more: Any) -> list[Check]:
    found = {"torch": "2.14.1", "cuda": "13.0", "archs": list(PYPI), "cpu": STEP, "devices": [*devices], **more}
    return list(device_checks(found, nproc=nproc, recipe=recipe))


def lines(found: list[Check], name: str) -> list[str]:
    return [f"{check.state} {check.says}" for check in found if check.name == name]


def test_no_gpu(monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("cifar_lab.doctor.devices._driver", lambda: None)
    found = {check.name: check.state for check in checks()}
    assert found == {"torch": "ok", "GPU": "warning", "CPU": "ok", "step": "ok"}
    monkeypatch.setattr("cifar_lab.doctor.devices._driver", lambda: "NVIDIA driver 470")
    (line,) = lines(checks(cuda_error="driver is too old"), "GPU")
    assert line == "FAIL NVIDIA driver 470 is there but torch cannot use it: driver is too old"
    (broken,) = device_checks({"error": "ImportError: libcudart.so"}, nproc=1, recipe=None)
    assert (broken.state, "libcudart.so" in broken.says) == ("FAIL", True)


def test_gpus_that_work() -> None:
    found = checks(A100, A100, nproc=2, recipe=BF16)
    assert {check.state for check in found} == {"ok"}
    assert lines(found, "GPU") == ["ok 2 x A100 40 GiB"]
    assert lines(found, "step") == ["ok forward, backward and SGD in bf16: GPU 0 1.2 ms, GPU 1 1.2 ms"]
    (line,) = lines(checks({"name": "Apple GPU", **STEP}), "GPU")
    assert line == "ok 1 x Apple GPU"


def test_too_few_gpus_and_too_little_memory() -> None:
    found = checks(A100, A100 | {"free": 10 * GIB}, nproc=3)
    assert lines(found, "GPU count") == ["FAIL 3 processes for 2 GPUs"]
    assert lines(found, "GPU memory") == ["warning GPU 1: only 10.0 of 40.0 GiB are free"]


def test_a_gpu_without_kernels_is_one_message() -> None:
    failing = V100 | {"problem": "CUDA error: no kernel image is available for execution on the device"}
    (check,) = (check for check in checks(failing, failing, recipe=BF16) if check.state == "FAIL")
    assert check.says.startswith("torch 2.14.1 has no kernels for V100 (compute capability 7.0)")
    assert "whl/cu126" in check.fix


def test_emulated_bf16() -> None:
    (line,) = lines(checks(T4, T4, recipe=BF16), "GPU use")
    assert line.startswith("warning train.precision: T4 (compute capability 7.5) computes bf16 in software")
    assert lines(checks(T4), "GPU use") == lines(checks(A100, recipe=BF16), "GPU use") == []


def test_a_gpu_that_fails_its_step() -> None:
    broken = {key: value for key, value in A100.items() if key not in STEP}
    found = checks(A100, broken | {"problem": "CUDA error: uncorrectable ECC error encountered"})
    assert lines(found, "step") == [
        "FAIL GPU 1: CUDA error: uncorrectable ECC error encountered",
        "ok forward, backward and SGD in fp32: GPU 0 1.2 ms",
    ]
    assert lines(checks({"name": "cuda:0"}, error="it ended with status -11"), "step") == [
        "FAIL GPU 0: it ended with status -11"
    ]
    for loss in (2.4, math.nan):
        (line,) = lines(checks(A100 | {"loss": loss}), "step")
        assert line == f"FAIL GPU 0 computes the loss {loss:.4f}, the CPU 2.3000"
    assert lines(checks(A100 | {"loss": math.nan}, cpu={"problem": "?"}), "step") != []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_step_is_made_for_real(precision) -> None:
    """On the CPU in fp32 it is the reference, from which other precisions and devices stay within the tolerance."""
    found = child._step(torch.device("cpu"), precision)
    exact = child._step(torch.device("cpu"), "fp32")
    assert found["seconds"] > 0
    assert found["loss"] == pytest.approx(exact["loss"], abs=0.02)
    first = math.log(10)
    assert 0 < exact["loss"] < first - 0.1  # it has learned
    (line,) = lines(checks(A100 | found, cpu=exact), "step")
    assert line.startswith("ok")


def test_a_step_that_raises_is_a_finding() -> None:
    assert "problem" in child._step(torch.device("meta"), "fp32")  # a device without values


def test_each_device_makes_a_step(monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    monkeypatch.setattr(child, "_about", lambda device: {"name": f"the {device}"})
    found: dict[str, Any] = {}
    for answer in child._devices(None, "fp32"):
        found |= answer
    assert [device["name"] for device in found["devices"]] == ["the cpu:0", "the cpu:1"]
    assert {device["loss"] for device in found["devices"]} == {found["cpu"]["loss"]}
    assert found["backend"] == "gloo"
    assert {check.state for check in device_checks(found, nproc=2, recipe=None)} == {"ok"}


@pytest.mark.launch
def test_the_all_reduce_has_a_process_for_each_device() -> None:
    """Over gloo, as there is no NCCL without a GPU; the processes are those of a machine with three devices."""
    check = all_reduce("gloo", ["cpu", "cpu", "cpu"], [3])
    assert check.state == "ok", check
    assert check.name == "all-reduce (gloo)"
    broken = all_reduce("nccl", ["cuda:0", "cuda:1"], [2])
    assert (broken.name, broken.state) == ("all-reduce (nccl)", "FAIL")
    assert broken.says.startswith("while the processes joined of cuda:0: ")
