"""Traffic and seconds against numbers worked out by hand."""

from __future__ import annotations

import pytest

from cifar_lab.errors import UsageError
from cifar_lab.planning.footprint import Curve, Footprint, Pass
from cifar_lab.planning.hardware import GPUS, LINKS, Setup, find_gpu, find_link
from cifar_lab.planning.memory import Layout
from cifar_lab.planning.speed import Traffic, exposed_seconds, timing, traffic
from cifar_lab.recipe import Recipe, parse_recipe

NUMEL = 10**8
NOTHING = Curve(((0.0, 0.0),))
MODEL = Footprint(NUMEL, NUMEL, 40, NUMEL, 0, NUMEL // 2, 13, 0, 10**9, {"plain": Pass(NOTHING, NOTHING)}, NOTHING)


def recipe(global_batch: int, precision: str = "fp32", **train: str | float) -> Recipe:
    return parse_recipe(
        {
            "name": "made",
            "data": {"image_size": 32},
            "model": {"name": "vit"},
            "optim": {"name": "adamw", "lr": 1e-3},
            "train": {"epochs": 1, "global_batch": global_batch, "precision": precision, **train},
        }
    )


def sent(
    strategy: str, gpus: int = 4, nodes: int = 1, accumulation_steps: int = 1, precision: str = "fp32", **train: str
) -> Traffic:
    setup = Setup(GPUS["h100-80gb"], gpus, nodes, find_link("10"))
    layout = Layout(strategy, False, setup.world_size, micro_batch=2, eval_batch=1)
    whole = recipe(2 * setup.world_size * accumulation_steps, precision, **train)
    return traffic(MODEL, whole, layout, setup)


def test_volumes_of_a_step() -> None:
    weights, part = 4 * NUMEL, 3 / 4
    assert sent("single", gpus=1).bytes == 0
    assert sent("ddp").bytes == 2 * part * weights
    assert sent("ddp", accumulation_steps=8).bytes == 2 * part * weights  # DDP reduces once
    assert sent("zero1").bytes == sent("zero2").bytes == 2 * part * weights
    assert sent("zero2", accumulation_steps=8).bytes == (8 + 1) * part * weights
    assert sent("zero3").bytes == 3 * part * weights
    assert sent("zero3", accumulation_steps=8).bytes == 24 * part * weights
    assert sent("zero3", precision="bf16").bytes == 3 * part * weights / 2
    assert sent("ddp", precision="bf16").bytes == 2 * part * weights  # DDP sends fp32 gradients
    assert sent("ddp", grad_compression="bf16").bytes == part * weights


def test_the_slowest_link_decides() -> None:
    inside, between = sent("ddp", gpus=4), sent("ddp", gpus=2, nodes=2)
    assert inside.bytes == between.bytes
    assert inside.bottleneck == "nvlink4"
    assert between.bottleneck == "10 Gbit/s"
    # 600 MB at 10 Gbit/s of which TCP leaves 94 %, and 96 messages of 50 us each way.
    assert between.seconds == pytest.approx(0.6e9 / (1.25e9 * 0.94) + 96 * 50e-6)
    assert inside.seconds < between.seconds / 100


def test_one_gpu_a_node_uses_no_link_inside() -> None:
    setup = Setup(GPUS["t4-16gb"], 1, 2, LINKS["ib-400g"])
    layout = Layout("ddp", False, 2, micro_batch=2, eval_batch=1)
    assert setup.inside.payload < setup.between.payload
    assert traffic(MODEL, recipe(4), layout, setup).bottleneck == "ib-400g"


def test_zero_in_bf16_and_what_it_hides() -> None:
    weights, part = 4 * NUMEL, 3 / 4
    assert sent("zero1", precision="bf16").bytes == part * (weights / 2 + weights)
    assert sent("zero2", precision="bf16", accumulation_steps=8).bytes == part * (8 * weights / 2 + weights)
    overlapped = [sent(strategy).overlapped for strategy in ("ddp", "zero1", "zero2", "zero3", "zero3_offload")]
    assert overlapped == [True, False, False, True, True]


def test_the_optimizer_of_zero() -> None:
    nothing, setup = Traffic(0, 0.0, None, overlapped=False), Setup(GPUS["h100-80gb"], 4)

    def optimizer(strategy: str) -> float:
        return timing(MODEL, recipe(8), Layout(strategy, False, 4, 2, 1), setup, nothing).optimizer

    assert optimizer("ddp") == 4 * optimizer("zero1")
    # By the host's memory, and gradients and weights over its bus.
    bus = 2 * NUMEL / 4 * 4 / LINKS["pcie4"].payload
    assert optimizer("zero3_offload") == pytest.approx(50 * optimizer("zero3") + bus)


def test_seconds_of_a_step() -> None:
    nothing = Traffic(0, 0.0, None, overlapped=False)

    def seconds(precision: str, *, checkpointing: bool = False, gpus: int = 1, **train: float):
        setup = Setup(GPUS["h100-80gb"], gpus, utilisation=0.5)
        layout = Layout("single", checkpointing, setup.world_size, micro_batch=1, eval_batch=1)
        return timing(MODEL, recipe(1000, precision, **train), layout, setup, nothing)

    assert seconds("bf16").flops == 3e12
    assert seconds("bf16", checkpointing=True).flops == 4e12
    assert seconds("bf16").compute == pytest.approx(3e12 / (989e12 * 0.5))
    assert seconds("fp32").compute == pytest.approx(3e12 / (67e12 * 0.5))
    assert seconds("fp32", tf32=True).compute == pytest.approx(3e12 / (494e12 * 0.5))
    assert seconds("bf16", tf32=True).compute == seconds("bf16").compute
    assert seconds("fp32", gpus=16).compute * 16 == seconds("fp32").compute
    # Weights and two moments read and written, gradients read.
    assert seconds("bf16").optimizer == pytest.approx(4 * NUMEL * 7 / 3350e9)
    # Weights read once more, and averages read and written.
    assert seconds("bf16", ema_decay=0.9).optimizer == pytest.approx(4 * NUMEL * 10 / 3350e9)
    assert GPUS["t4-16gb"].flops("bf16") == GPUS["t4-16gb"].flops("fp32")  # no bf16 hardware
    assert GPUS["t4-16gb"].flops("fp16") == 65e12
    assert GPUS["h100-80gb"].flops("fp16") == GPUS["h100-80gb"].flops("bf16")
    assert GPUS["v100-32gb"].flops("tf32") == GPUS["v100-32gb"].flops("fp32")


def test_what_the_backward_pass_hides() -> None:
    assert exposed_seconds(Traffic(1, 1.0, "x", overlapped=True), compute=3.0) == 0
    assert exposed_seconds(Traffic(1, 3.0, "x", overlapped=True), compute=3.0) == pytest.approx(1.0)
    assert exposed_seconds(Traffic(1, 3.0, "x", overlapped=False), compute=3.0) == 3.0


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (find_gpu, "h100", "--gpu h100: there is no such GPU (did you mean `h100-80gb`?)"),
        (find_gpu, "H100_80GB ", "no such GPU (did you mean `h100-80gb`?)"),
        (find_gpu, "abacus", "there is no such GPU; there are b200-180gb, "),
        (find_link, "nvlink", "--link nvlink: there is no such link"),
        (find_link, "0", "more than 0 Gbit/s"),
        (find_link, "-3", "more than 0 Gbit/s"),
        (find_link, "nan", "more than 0 Gbit/s"),
    ],
)
def test_unknown_names(find, name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        find(name)
    assert message in str(error.value)


def test_names_are_forgiving() -> None:
    assert find_gpu("H100_80GB").name == "h100-80gb"
    assert find_link("25").gigabytes == 25 / 8


def test_every_gpu_has_a_link() -> None:
    assert {gpu.link for gpu in GPUS.values()} <= set(LINKS)
    assert all(name == gpu.name and gpu.memory > 10 * 2**30 for name, gpu in GPUS.items())
