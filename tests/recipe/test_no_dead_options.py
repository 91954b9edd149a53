"""Every field of a recipe is read by some code, and every entry of the table of unsupported options works."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cifar_lab
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.schema import fields, sections
from cifar_lab.recipe.support import TABLE, unsupported

PACKAGE = Path(cifar_lab.__file__).parent
LEAVES = sorted(fields())
SECTIONS = {section.rpartition(".")[2] for section in sections()} - {""}


def fields_read(module: ast.Module) -> Iterator[str]:
    """`section.field` of each attribute read from something named like a section: `recipe.optim.lr`, `optim.lr`.

    A local name for a section counts as it (`save = recipe.checkpoint`); the attribute of anything else does not.
    """
    names = {section: section for section in SECTIONS | {"recipe"}}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                together = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                pairs = zip(target.elts, node.value.elts, strict=True) if together else [(target, node.value)]
                names |= {
                    left.id: right.attr
                    for left, right in pairs
                    if isinstance(left, ast.Name) and isinstance(right, ast.Attribute) and right.attr in SECTIONS
                }
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if name.lstrip("_") in names:
                yield f"{names[name.lstrip('_')]}.{node.attr}"


@pytest.fixture(scope="module")
def read_anywhere() -> set[str]:
    """What the package reads, outside the recipe's own checks: checking a field is not using it."""
    checks = {path for path in (PACKAGE / "recipe").glob("*.py") if path.name != "schedule.py"}
    files = [path for path in PACKAGE.rglob("*.py") if path not in checks]
    return {field for path in files for field in fields_read(ast.parse(path.read_bytes()))}


@pytest.mark.parametrize("key", LEAVES)
def test_a_field_is_read(key: str, read_anywhere: set[str]) -> None:
    name = ".".join(["recipe", *key.split(".")][-2:])
    assert name in read_anywhere, f"no code reads {key} (as `{name}`): use it or delete it from the schema"


def test_a_field_of_another_thing_does_not_count() -> None:
    code = "save, other = recipe.checkpoint, 3\nsave.keep_last\nargs.batch\nself.optim.lr\nrecipe.seed"
    assert set(fields_read(ast.parse(code))) == {
        "recipe.checkpoint",
        "checkpoint.keep_last",
        "optim.lr",
        "recipe.seed",
    }


def test_the_table_of_unsupported_options_names_fields() -> None:
    assert {entry.option for entry in TABLE} <= set(LEAVES)


def test_cuda_graphs_are_refused_on_a_cpu_and_where_gradients_are_accumulated() -> None:
    train = {"epochs": 1, "global_batch": 4, "compile": "reduce-overhead"}
    mapping = {"name": "sample", "model": {"name": "resnet"}, "optim": {"lr": 0.1}, "train": train}
    recipe = parse_recipe(mapping)
    assert unsupported(recipe, device="cuda", strategy="ddp") == []
    (problem,) = unsupported(recipe, device="cuda", strategy="ddp", accumulation_steps=2)
    assert problem.startswith("train.compile: does not work on gradient accumulation: CUDA graphs over several")
    assert problem.endswith("set it to true, or raise train.micro_batch (or use more processes) until a step has one")
    (problem,) = unsupported(recipe, device="cpu", strategy="single")
    assert problem.endswith("; set it to true")
    plain = parse_recipe({**mapping, "train": {**train, "compile": True}})
    assert unsupported(plain, device="cpu", strategy="single", accumulation_steps=2) == []


def test_sync_batchnorm_is_refused_on_cpu() -> None:
    recipe = parse_recipe(
        {
            "name": "sample",
            "model": {"name": "resnet"},
            "optim": {"lr": 0.1},
            "train": {"epochs": 1, "global_batch": 4, "sync_batchnorm": True},
        }
    )
    assert unsupported(recipe, device="cuda", strategy="ddp") == []
    (problem,) = unsupported(recipe, device="cpu", strategy="ddp")
    assert problem.startswith("train.sync_batchnorm: does not work on cpu: torch's SyncBatchNorm refuses CPU tensors")
