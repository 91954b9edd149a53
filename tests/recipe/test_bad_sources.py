"""Bad overrides, files that are no recipes, and bad mappings from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cifar_lab.recipe import RecipeError, load_recipe, parse_recipe

TEXT = """\
name: sample
data: {val_size: 100, image_size: 32}
model: {name: resnet, args: {depth: 18}}
optim: {lr: 0.1}
train: {epochs: 2, global_batch: 64}
"""


def problems_of(path: Path, *overrides: str) -> list[str]:
    """The problems of a recipe without the path of its file."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "where", "fix"),
    [
        ("optim.lr", "", '"optim.lr" is not of the form dotted.key=value'),
        ("=3", "", "is not of the form dotted.key=value"),
        ("optim..lr=3", "", "is not of the form dotted.key=value"),
        ("optim.lr=", "optim.lr", "has no value; write null for none"),
        ("optim.lr=fast", "optim.lr", 'should be a valid number, found "fast"'),
        ("optim.lrr=0.1", "optim.lrr", "did you mean `lr`?"),
        ("optm.lr=0.1", "optm", "did you mean `optim`?"),
        ("name.x=1", "name.x", "`name` is not a section, so it has no key `x`"),
        ("optim={lr: 1}", "optim", "override its keys one by one"),
        ("optim=sgd", "optim", 'should be a valid dictionary or instance of Optim, found "sgd"'),
        ("optim.betas=[0.9", "optim.betas", "while parsing a flow sequence"),
        ("model.args={depth: 19}", "model.args.depth", "should be 18 or 34, found 19"),
        ("model.args.deep=1", "model.args.deep", "`resnet` has no such argument"),
        (
            "train.steps=5",
            "train.steps",
            "both given; delete one (on the command line: train.epochs=null)",
        ),
        ("train.epochs=null", "train.epochs", "give `train.epochs` or `train.steps`"),
        ("optim.lr=*x", "optim.lr", "the anchor or alias `x` is refused"),
        ("optim.lr=!!float 1", "optim.lr", "the tag `!!float` is refused"),
        ("train.precision=fp8", "train.precision", "should be 'fp32', 'bf16' or 'fp16'"),
        ("seed=yes", "seed", 'found "yes"'),
    ],
)
def test_a_bad_override_is_located_as_such(recipe_file: Path, override: str, where: str, fix: str) -> None:
    problems = problems_of(recipe_file, override)
    assert len(problems) == 1, problems
    assert fix in problems[0]
    assert problems[0].startswith(f"override: {where}" if where else "override: ")


@pytest.mark.parametrize(
    ("content", "where", "fix"),
    [
        (b"", "1", "the file is empty"),
        (
            b"# only a comment\n",
            "1",
            "the file is empty; a recipe is made of `key: value` lines: `name`, `model`, `optim` and `train`",
        ),
        (b"- name: x\n", "1", "a list at the top; a recipe is made of `key: value` lines"),
        (b"just text\n", "1", "plain text at the top"),
        (b"null\n", "1", "the file is empty"),
        (b"name: x\n\x00\x01\x02", "2", "an unprintable character (U+0000)"),
        ("name: x\n".encode("utf-16"), "1", "not UTF-8 text; save the file in UTF-8"),
        (b"name: x\nseed: 0\n# caf\xe9\n", "3", "not UTF-8 text; save the file in UTF-8"),
        (b"name: x\n" + b"# filler\n" * 10000, "", "is larger than 64 KiB"),
        (b"seed: *one\n<<: *two\n", "1", "the anchor or alias `one` is refused"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, where: str, fix: str) -> None:
    path = tmp_path / "sample.yaml"
    path.write_bytes(content)
    problem = problems_of(path)[0]
    assert problem.startswith(f"{where}: ".removeprefix(": ") if where else " is larger"), problem
    assert fix in problem


def test_paths_that_are_no_file(tmp_path: Path, recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match=r"is a directory; name a recipe file, such as .*sample\.yaml"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"no such file \(did you mean `.*/sample\.yaml`\?\)"):
        load_recipe(tmp_path / "smaple.yaml")
    with pytest.raises(RecipeError, match=r"no such file \(did you mean `.*/sample\.yaml`\?\)"):
        load_recipe(tmp_path / "sample")
    with pytest.raises(RecipeError, match=r"no such file; the folder .* does not exist"):
        load_recipe(tmp_path / "nowhere" / "sample.yaml")


def test_an_override_that_contradicts_the_file_names_both(recipe_file: Path) -> None:
    assert problems_of(recipe_file, "data.limit=32") == [
        "5: train.global_batch: 64 is more than all training images (`data.limit` is 32), so an epoch would have no "
        "step; lower train.global_batch or raise data.limit"
    ]


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ([1], "a recipe is a mapping of sections, not list"),
        ({1: 2}, "1: Keys should be strings"),
        ({"name": "x", "model": {1: 2, "name": "resnet"}}, "model.1: Keys should be strings"),
        ({"name": "x", "model": {"args": {1: 2}, "name": "resnet"}}, "model.args[1]: Input should be a valid string"),
        ({"name": "x", "model": {"name": "resnet"}, "optim": {"lr": "1"}}, "optim.lr: Input should be a valid number"),
    ],
)
def test_a_bad_mapping_from_python(mapping: Any, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(mapping)
    assert any(line.startswith(problem) for line in caught.value.problems), caught.value.problems
