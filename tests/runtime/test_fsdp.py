"""FSDP2 is the same experiment: losses, checkpoints, averages and skipped steps equal those of one process."""

import re

import pytest
from support.small import with_batch_norm
from support.zero import RECIPE, Runs, assert_same_tensors, recipe
from torch import nn
from workers.zero_jobs import run as run_job

from cifar_lab.models.blocks import find_blocks
from cifar_lab.models.factory import build_meta
from cifar_lab.recipe.schema import Model
from cifar_lab.runtime.world import World

PLAIN = recipe()
SGD = recipe(optim__name="sgd", optim__lr=0.05)
BATCH_NORM = with_batch_norm(**{**RECIPE, "train__micro_batch": 8})
SKIPPING = recipe(train__on_nonfinite="skip")
# A batch of 24 is one of 8 pictures for each of three processes, and of 24 for one.
THREE = recipe(train__global_batch=24, train__micro_batch=4)
PRECISIONS = {name: recipe(train__precision=name) for name in ("bf16", "fp16")}
COMPILED = recipe(train__compile=True)
RECOMPUTED = recipe(train__grad_checkpointing=True)
BAD_STEPS = [0, 5]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All runs of this file, in one launch for each layout."""
    runs = Runs(tmp_path_factory.mktemp("fsdp"))
    world = World.start()
    recipes = {"": PLAIN, "_sgd": SGD, "_norm": BATCH_NORM, "_three": THREE}
    recipes |= {f"_{name}": mapping for name, mapping in PRECISIONS.items()}
    for name, mapping in recipes.items():
        run_job(world, runs.job(f"one{name}", mapping))
    run_job(world, runs.job("one_skipping", SKIPPING, bad_steps=BAD_STEPS))
    runs.fork("one", "one_to_fsdp", 10)
    jobs = [runs.job(f"fsdp{name}", mapping) for name, mapping in recipes.items() if name != "_three"]
    jobs += [
        runs.job("fsdp_recomputed", RECOMPUTED),
        runs.job("fsdp_compiled", COMPILED),
        runs.job("fsdp_skipping", SKIPPING, bad_steps=BAD_STEPS),
        runs.job("one_to_fsdp", PLAIN),
    ]
    runs.printed = runs.train("fsdp2", jobs)
    runs.train("fsdp2", [runs.job("fsdp_three", THREE)], processes=3)
    for name in ("fsdp", "fsdp_three"):
        runs.fork(name, f"{name}_to_one", 10)
        run_job(world, runs.job(f"{name}_to_one", THREE if "three" in name else PLAIN))
    runs.fork("fsdp", "fsdp_to_zero3", 10)
    runs.train("zero", [runs.job("fsdp_to_zero3", PLAIN, stage=3, persistence=0)])
    return runs


@pytest.mark.launch
def test_losses_are_those_of_one_process(runs):
    assert len(runs.losses("one")) == 20
    for name, processes in (("", 2), ("_sgd", 2), ("_three", 3)):
        assert runs.losses(f"fsdp{name}") == pytest.approx(runs.losses(f"one{name}"), rel=1e-5)
        report = runs.report(f"fsdp{name}")
        assert (report["strategy"], report["world_size"]) == ("fsdp2", processes)
    for name in ("recomputed", "compiled"):
        assert runs.losses(f"fsdp_{name}") == pytest.approx(runs.losses("one"), rel=1e-5)
    assert runs.losses("fsdp_norm") == pytest.approx(runs.losses("one_norm"), rel=3e-5)
    for name in ("", "_three"):  # the clipped norm is that of all shards together
        norms = [line["grad_norm"] for line in runs.lines(f"one{name}", "train")]
        assert [line["grad_norm"] for line in runs.lines(f"fsdp{name}", "train")] == pytest.approx(norms, rel=1e-5)


@pytest.mark.launch
def test_validation_with_the_average_is_that_of_one_process(runs):
    for name in ("", "_norm", "_three"):
        reference = runs.lines(f"one{name}", "val")
        assert [line["step"] for line in reference] == [10, 20] or name == "_three"
        assert runs.losses(f"fsdp{name}", "val") == pytest.approx([line["loss"] for line in reference], rel=1e-5)
        for key in ("accuracy", "count"):
            assert [line[key] for line in runs.lines(f"fsdp{name}", "val")] == [line[key] for line in reference]


@pytest.mark.launch
def test_the_average_stands_in_and_goes_without_a_trace(runs):
    for name in ("fsdp", "fsdp_norm", "fsdp_bf16", "fsdp_three", "one_to_fsdp"):
        assert runs.report(name)["ema_stands_in"]
        assert runs.report(name)["ema_leaves_no_trace"]
    assert runs.report("one_to_fsdp")["ema_is_predicted_with"]


@pytest.mark.launch
def test_a_checkpoint_holds_the_same_tensors(runs):
    for name, tolerance in (("", 1e-6), ("_sgd", 1e-6), ("_three", 1e-5)):  # sums of three have another order
        assert_same_tensors(runs.tensors(f"fsdp{name}", 20), runs.tensors(f"one{name}", 20), tolerance)


@pytest.mark.launch
def test_a_run_moves_between_layouts(runs):
    for name in ("one_to_fsdp", "fsdp_to_one", "fsdp_to_zero3"):
        assert runs.losses(name) == pytest.approx(runs.losses("one"), rel=1e-5)
        assert_same_tensors(runs.tensors(name, 20), runs.tensors("one", 20))
    assert runs.losses("fsdp_three_to_one") == pytest.approx(runs.losses("one_three"), rel=1e-5)


@pytest.mark.launch
def test_a_nan_loss_is_a_skipped_step(runs):
    report = runs.report("fsdp_skipping")
    assert (report["skipped"], report["first_bad_step"], report["finite"]) == (2, BAD_STEPS[0], True)
    assert report["first_bad_tensor"] == "pos_embed"  # all of them are NaN
    assert_same_tensors(runs.tensors("fsdp_skipping", 20), runs.tensors("one_skipping", 20))


@pytest.mark.launch
@pytest.mark.parametrize("precision", PRECISIONS)
def test_half_precision_differs_by_rounding_only(runs, precision):
    found, reference = runs.losses(f"fsdp_{precision}"), runs.losses(f"one_{precision}")
    assert found == pytest.approx(reference, rel=1e-4)
    assert reference != pytest.approx(runs.losses("one"), rel=1e-6)


@pytest.mark.launch
def test_it_is_quiet(runs):
    assert not re.search("warn|deprecat", runs.printed, re.IGNORECASE)


@pytest.mark.parametrize(
    ("model", "kind", "count"),
    [
        ({"name": "vit", "args": {"depth": 3}}, "Block", 3),
        ({"name": "resnet", "args": {"depth": 18}}, "BasicBlock", 8),
        ({"name": "timm_zoo", "args": {"arch": "eva02_tiny_patch14_224"}}, "EvaBlock", 12),
        ({"name": "timm_zoo", "args": {"arch": "swin_tiny_patch4_window7_224"}}, "SwinTransformerBlock", 12),
        ({"name": "timm_zoo", "args": {"arch": "convnext_atto"}}, "ConvNeXtBlock", 12),
    ],
)
def test_blocks_are_found_in_any_model(model, kind, count):
    found = find_blocks(build_meta(Model(**model), 10, 224))
    assert [type(block).__name__ for block in found] == [kind] * count


def test_a_model_without_blocks_is_one():
    assert find_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == []
