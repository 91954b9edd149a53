"""`train.grad_compression`: gradients travel rounded, arrive equal everywhere, and training goes on as without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import RecipeError, parse_recipe
from cifar_lab.recipe.identity import experiment_id
from cifar_lab.recipe.support import unsupported
from cifar_lab.runtime.make import apply_options, make_engine
from cifar_lab.runtime.world import World

WORKER = Path(__file__).parents[1] / "workers" / "compression.py"
ZERO = ("zero1", "zero2", "zero3", "zero1_offload", "zero2_offload", "zero3_offload")


@pytest.mark.launch
def test_gradients_travel_rounded_between_two_processes(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, str(WORKER), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {
        name: [dict(np.load(tmp_path / f"{name}-{rank}.npz")) for rank in range(2)] for name in ("None", "fp16", "bf16")
    }
    for ranks in found.values():
        assert np.array_equal(ranks[0]["gradient"], ranks[1]["gradient"])
        assert not np.array_equal(ranks[0]["losses"], ranks[1]["losses"])  # they saw other pictures
    exact = found["None"][0]
    for name, dtype, error in (("fp16", torch.float16, 2**-9), ("bf16", torch.bfloat16, 2**-7)):
        gradient = torch.from_numpy(found[name][0]["gradient"])
        # What was summed in a short type and came back is a number of that type: the links carried nothing longer.
        assert torch.equal(gradient, gradient.to(dtype).float())
        assert not np.array_equal(exact["gradient"], torch.from_numpy(exact["gradient"]).to(dtype).float().numpy())
        off = np.linalg.norm(gradient.numpy() - exact["gradient"]) / np.linalg.norm(exact["gradient"])
        assert 0 < off < error
        assert found[name][0]["losses"] == pytest.approx(exact["losses"], rel=1e-3)


@pytest.mark.parametrize("compression", ["fp16", "bf16"])
def test_zero_refuses_it_and_names_what_to_do(compression):
    recipe = parse_recipe(small(train__grad_compression=compression))
    for strategy in ZERO:
        with pytest.raises(UsageError, match="set it to null, or use DDP") as error:
            apply_options(build_model(recipe.model, 10, 16, seed=0), recipe, World.start(), strategy)
        assert str(error.value).startswith(f"train.grad_compression: does not work on {strategy}: gradients are sent")
        assert unsupported(parse_recipe(small()), device="cpu", strategy=strategy) == []
    for strategy in ("single", "ddp"):
        assert unsupported(recipe, device="cpu", strategy=strategy) == []


def test_what_keeps_state_of_its_own_is_not_offered():
    with pytest.raises(RecipeError, match=r"train.grad_compression"):
        parse_recipe(small(train__grad_compression="powersgd"))


def test_one_process_sends_nothing():
    recipe = parse_recipe(small(train__grad_compression="bf16"))
    engine = make_engine(World.start(), recipe, build_model(recipe.model, 10, 16, seed=0), 1)
    assert engine.model is engine.module


def test_it_makes_another_experiment():
    assert experiment_id(parse_recipe(small(train__grad_compression="bf16"))) != experiment_id(parse_recipe(small()))
