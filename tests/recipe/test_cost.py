"""Checking a recipe is cheap: of the large libraries it imports none, be the recipe good or bad."""

from __future__ import annotations

import pytest
from support.commands import PYTHON, ROOT, completed

CODE = """
import sys
from cifar_lab.recipe import RecipeError, load_recipe
try:
    load_recipe(sys.argv[1], sys.argv[2:])
except RecipeError as error:
    print(error)
heavy = {"torch", "timm", "numpy", "accelerate", "datasets", "PIL", "scipy", "rich"}
print("heavy:", sorted(heavy & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [([], ""), (["optim.lrr=1", "model.args.arch=vit_tiny_patch16_225"], "(did you mean `vit_tiny_patch16_224`?)")],
    ids=["good", "bad"],
)
def test_checking_is_cheap(overrides: list[str], said: str) -> None:
    command = [PYTHON, "-c", CODE, str(ROOT / "recipes" / "vit_tiny.yaml"), *overrides]
    run = completed(command, PYTHONPATH=str(ROOT))
    assert run.stdout.endswith("heavy: []\n"), run.stderr
    assert said in run.stdout
