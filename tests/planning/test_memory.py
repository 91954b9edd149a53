"""Bytes of each part, the largest micro-batch, and constants that live in two places."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.data.sizes import DataSizes
from cifar_lab.errors import UsageError
from cifar_lab.planning import memory as planned
from cifar_lab.planning.footprint import Curve, Footprint, Pass
from cifar_lab.planning.hardware import Setup, find_gpu
from cifar_lab.planning.make import fastest, make_setup, options
from cifar_lab.planning.memory import Layout, Memory, checkpoint_bytes, memory, num_moments
from cifar_lab.planning.remedy import nearest_that_works
from cifar_lab.planning.speed import Timing
from cifar_lab.recipe import Recipe, parse_recipe

MB = 10**6
SIZES = DataSizes(num_train=45_000, num_val=5000, num_test=10_000, num_classes=10, source_size=32, image_size=32)


def made(numel: int = 100 * MB, slope: int = 50 * MB) -> Footprint:
    """A model of `numel` parameters whose activations are `slope` bytes an image, a tenth with checkpointing."""

    def one_pass(per_image: int) -> Pass:
        return Pass(Curve(((0, per_image),)), Curve(((0, per_image), (4 * numel, 0))))

    return Footprint(
        num_parameters=numel,
        num_trainable=numel,
        num_tensors=100,
        largest=numel // 10,
        small=0,
        gathered=numel // 2,
        num_groups=13,
        buffer_bytes=0,
        flops_per_image=10**12,
        passes={"plain": one_pass(slope), "checkpointed": one_pass(slope // 10)},
        evaluation=Curve(((0, slope // 10),)),
    )


def recipe(global_batch: int = 256, optim: str = "adamw", **train: object) -> Recipe:
    return parse_recipe(
        {
            "name": "made",
            "data": {"image_size": 32},
            "model": {"name": "vit"},
            "optim": {"name": optim, "lr": 1e-3},
            "eval": {"batch": 100},
            "train": {"epochs": 1, "global_batch": global_batch, **train},
        }
    )


def at(
    strategy: str,
    world_size: int = 4,
    accumulates: bool = True,
    checkpointing: bool = False,
    device: str = "cuda",
    micro_batch: int = 8,
    eval_batch: int = 100,
    optim: str = "adamw",
    ema_decay: float | None = 0.9,
    precision: str = "fp32",
    image_size: int = 32,
    **model: Any,
) -> Memory:
    global_batch = micro_batch * world_size * (2 if accumulates else 1)
    layout = Layout(strategy, checkpointing, world_size, micro_batch, eval_batch, device)
    trained = recipe(global_batch, optim=optim, ema_decay=ema_decay, precision=precision)
    return memory(replace(made(), **model), trained, replace(SIZES, image_size=image_size), layout)


def setup(gpu: str = "a100-40gb", gpus: int = 4, nodes: int = 1) -> Setup:
    return Setup(find_gpu(gpu), gpus, nodes)


def test_one_process_has_everything_whole() -> None:
    found = at("single", world_size=1)
    assert (found.parameters, found.gradients, found.optimizer, found.ema) == (400 * MB, 400 * MB, 800 * MB, 400 * MB)
    assert found.activations == 8 * 50 * MB
    # CIFAR-10's 184 MB; images and scratch of the training and the evaluation stream.
    assert found.data == 60_000 * 3072 + (8 + 100) * 3072 * (4 + 8)
    assert found.total == found.state + 800 * MB
    # Without accumulation gradients appear while activations go.
    assert at("single", world_size=1, accumulates=False).gradients == 0


def test_what_each_stage_shards() -> None:
    ddp, one, two, three = (at(strategy) for strategy in ("ddp", "zero1", "zero2", "zero3"))
    assert ddp.gradients == one.gradients == 400 * MB
    assert two.gradients == three.gradients == 100 * MB
    assert one.optimizer == two.optimizer == three.optimizer == ddp.optimizer // 4
    assert one.ema == ddp.ema // 4
    assert one.parameters == 500 * MB  # flat weights, and a master copy of a quarter
    assert three.parameters == 100 * MB
    # At the peak of a pass that does not accumulate, only buffers that live between steps hold gradients.
    fresh = [at(strategy, accumulates=False).gradients for strategy in ("ddp", "zero1", "zero2", "zero3")]
    assert fresh == [400 * MB, 0, 0, 100 * MB]
    offloaded = at("zero3_offload")
    assert (offloaded.parameters, offloaded.gradients, offloaded.optimizer) == (0, 0, 0)
    assert offloaded.host >= 400 * MB


def test_what_is_not_trained_and_buffers() -> None:
    frozen = {"num_parameters": 130 * MB, "buffer_bytes": 7 * MB}
    ddp, one, three = (at(strategy, **frozen) for strategy in ("ddp", "zero1", "zero3"))
    assert ddp.parameters == (130 * 4 + 7) * MB
    assert one.parameters == (130 * 4 + 100 + 7) * MB
    assert three.parameters == (30 * 4 + 100 + 7) * MB
    assert at("zero3_offload", **frozen, small=10 * MB).parameters == (30 * 4 + 10 * 4 + 7) * MB
    assert (ddp.gradients, ddp.optimizer, ddp.ema) == (400 * MB, 800 * MB, (400 + 7) * MB)
    model = replace(made(), **frozen)
    assert checkpoint_bytes(recipe(), model) == (130 * 4 + 7 + 800) * MB
    assert checkpoint_bytes(recipe(ema_decay=0.9), model) == (2 * (130 * 4 + 7) + 800) * MB


def test_what_zero_holds_besides() -> None:
    # Small parameters stay whole everywhere; the largest one is gathered at once, however large.
    assert at("zero3", small=10 * MB).parameters - at("zero3").parameters == 40 * MB
    assert at("zero3", largest=80 * MB).workspace - at("zero3").workspace == 4 * 30 * MB
    for strategy, gathered in (("zero1", 0), ("zero3", 50)):
        half, full = (at(strategy, precision=precision).workspace for precision in ("bf16", "fp32"))
        assert half - full == (2 * 10 - 2 * gathered) * MB, "gradients in bf16 besides, weights in bf16 instead"
    # The optimizer's step flattens the process's part of the gradients, when activations are gone.
    for strategy in ("zero2", "zero3"):
        found = at(strategy, micro_batch=1, accumulates=False)
        assert found.activations + found.gradients == 200 * MB
    assert at("zero3_offload").host == (3 * 100 + 200 + 100) * MB


def test_gradients_that_appear_while_activations_go() -> None:
    # The largest of all of the activations, and of the gradients of 400 MB once they are there.
    assert at("single", 1, accumulates=False, micro_batch=2).gradients == 300 * MB
    assert at("single", 1, accumulates=False, micro_batch=10).gradients == 0
    partly = Pass(Curve(((0, 50 * MB),)), Curve(((300 * MB, 50 * MB),)))
    assert at("single", 1, accumulates=False, passes={"plain": partly}).gradients == 300 * MB
    found = at("ddp")
    assert found.workspace == planned.CUDA_CONTEXT + planned.NCCL_BUFFERS + round(0.06 * 800 * MB)
    assert at("ddp").evaluation == (100 * 5 + 400) * MB, "DDP's buckets stay"


def test_buffers_of_a_resized_stream() -> None:
    source, large = 3 * 32 * 32, 3 * 64 * 64
    lines = 3 * 32 * 64  # resized in one direction
    on_device = at("ddp", image_size=64).data - 60_000 * source
    assert on_device == (8 + 100) * (4 * large + 4 * lines + (4 + 4) * source)
    assert at("ddp", image_size=64, device="cpu").data - 60_000 * source == (8 + 100) * 4 * large


def test_options_of_the_recipe_count() -> None:
    assert [num_moments(recipe(optim=name)) for name in ("adamw", "sgd", "muon")] == [2, 1, 1]
    still = recipe().optim.model_copy(update={"name": "sgd", "momentum": 0.0})
    assert num_moments(recipe().model_copy(update={"optim": still})) == 0
    assert at("ddp", optim="sgd").optimizer == 400 * MB
    assert at("ddp", ema_decay=None).ema == 0
    assert at("ddp", checkpointing=True).activations == 40 * MB
    assert at("ddp").workspace - at("ddp", device="cpu").workspace > planned.CUDA_CONTEXT + planned.NCCL_BUFFERS


def test_evaluation_can_be_the_peak() -> None:
    found = at("zero2", micro_batch=1, eval_batch=5000)
    assert found.evaluation == 5000 * 5 * MB
    assert found.total == found.state + found.evaluation > found.training


def test_constants_are_those_of_the_runtime() -> None:
    source = Path(planned.__file__).parents[1] / "runtime" / "zero_config.py"
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and
        node.targets[0].id in ("BUCKET", "LIVE_PARAMETERS", "PERSISTENCE_THRESHOLD")
    }  # fmt: skip
    assert assigned == {name: getattr(planned, name) for name in assigned}
    assert len(assigned) == 3


def test_the_largest_micro_batch_that_fits() -> None:
    where = setup()
    for option in options(recipe(), made(slope=1000 * MB), SIZES, where):
        assert option.problem is None
        assert option.layout.micro_batch * option.accumulation_steps * 4 == 256
        assert option.memory.total <= where.memory
        larger = replace(option.layout, micro_batch=2 * option.layout.micro_batch)
        if option.accumulation_steps > 1:
            assert memory(made(slope=1000 * MB), recipe(), SIZES, larger).total > where.memory


def test_of_two_that_are_as_fast_the_simpler_one_is_taken() -> None:
    ddp, zero = options(recipe(), made(), SIZES, setup(), strategies=("ddp", "zero1"))[::2]
    for seconds, strategy in ((1.0, "ddp"), (1.01, "ddp"), (1.03, "zero1")):
        timed = [replace(option, timing=Timing(1, took, 0.0, 0.0)) for option, took in ((zero, 1.0), (ddp, seconds))]
        best = fastest(timed)
        assert best is not None and best.layout.strategy == strategy


def test_an_evaluation_is_never_larger_than_the_recipe_says() -> None:
    hungry = replace(made(slope=1), evaluation=Curve(((0, 250 * MB),)))
    for model in (made(slope=1), hungry):  # 100 pictures of 25 GB fit
        (option, *_) = options(recipe(1024), model, SIZES, setup(), strategies=("ddp",))
        assert (option.layout.micro_batch, option.layout.eval_batch) == (256, 100)
    assert make_setup(1, "t4-16gb", utilisation=1.0).utilisation == 1


def test_the_fastest_does_not_recompute_in_vain() -> None:
    best = fastest(options(recipe(), made(), SIZES, setup()))
    assert best is not None
    assert (best.layout.strategy, best.layout.checkpointing) == ("ddp", False)
    # 10 billion parameters: 160 GB of state are too much for each of four.
    best = fastest(options(recipe(), made(10_000 * MB), SIZES, setup("h200-141gb", gpus=8)))
    assert best is not None
    assert best.layout.strategy.startswith("zero")


def test_micro_batches_are_those_of_the_schedule() -> None:
    for capped, largest in ((None, 24), (6, 6)):
        found = options(recipe(96, micro_batch=capped), made(), SIZES, setup(), strategies=("ddp",))
        assert found[0].layout.micro_batch == largest
    for strategy, gpus in (("single", 4), ("ddp", 1)):
        with pytest.raises(UsageError, match=f"--strategy {strategy} is not for"):
            options(recipe(), made(), SIZES, setup(gpus=gpus), strategies=(strategy,))


def test_too_small_for_any_strategy_names_what_works() -> None:
    huge, where = made(10_000 * MB), setup("t4-16gb", gpus=1)
    found = options(recipe(), huge, SIZES, where)
    assert fastest(found) is None
    message = nearest_that_works(recipe(), huge, SIZES, where, found)
    first, *others = message.splitlines()
    assert first.startswith("made does not fit on 1 x t4-16gb: zero3_offload with gradient checkpointing needs ")
    assert first.endswith("needs 186 GiB of host memory a process, 120 are assumed")
    assert [line.split(",")[0] for line in others] == ["what works: 2 x t4-16gb", "what works: 4 x t4-16gb"]
    huge, where = made(60_000 * MB), setup("t4-16gb", gpus=8)
    message = nearest_that_works(recipe(), huge, SIZES, where, options(recipe(), huge, SIZES, where))
    assert message.splitlines()[1:] == ["what works: 8 x b200-180gb, zero3 (micro-batch 32, 166.8 GiB)"]


def test_nothing_works() -> None:
    huge, where = made(10**12), setup("t4-16gb", gpus=1)
    found = options(recipe(), huge, SIZES, where)
    assert "no GPU of the table is large enough" in nearest_that_works(recipe(), huge, SIZES, where, found)
