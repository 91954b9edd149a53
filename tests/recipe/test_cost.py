"""Checking a recipe is cheap: no torch, no timm, and a fraction of a second with the interpreter's start."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from cifar_lab.recipe import RecipeError, load_recipe
try:
    load_recipe(sys.argv[1], sys.argv[2:])
except RecipeError as error:
    print(error)
print("heavy:", sorted({"torch", "timm", "numpy", "accelerate", "datasets"} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [([], ""), (["optim.lrr=1", "model.args.arch=vit_tiny_patch16_225"], "(did you mean `vit_tiny_patch16_224`?)")],
    ids=["good", "bad"],
)
def test_checking_is_cheap(overrides: list[str], said: str) -> None:
    command = [sys.executable, "-c", CODE, str(ROOT / "recipes" / "vit_tiny.yaml"), *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
        seconds.append(time.perf_counter() - start)
        assert run.stdout.endswith("heavy: []\n")
        assert said in run.stdout
    assert statistics.median(seconds) < 0.7, seconds
