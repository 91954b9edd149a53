"""Good recipes: shipped ones, numbers as people write them, overrides, where values come from, and back to YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import ROOT

from cifar_lab.recipe import Recipe, RecipeError, load_recipe, origins, parse_recipe, to_yaml
from cifar_lab.recipe.yaml_text import scalar

SHIPPED = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "sweeps")
STUDY = {"plain18", "plain34", "resnet18", "resnet34", "resnet18_ms", "vit_tiny", "vit_tiny_scratch", "vit_custom"}
TEXT = """\
name: sample
model: {name: resnet}
optim:
  lr: 1e-1
  weight_decay: 5E-4
train: {epochs: 2, global_batch: 64}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_study_and_the_demo_are_shipped() -> None:
    assert {*STUDY, "eva02_large", "demo"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in SHIPPED])
def test_a_shipped_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, check_files=False)
    assert recipe.name == path.stem + ("_strong" if path.parent.name == "strong" else "")
    header = path.read_text(encoding="utf-8").split("name:")[0]
    assert header.startswith("# yaml-language-server: $schema=")
    assert f"-m cifar_lab.train {path.relative_to(ROOT)}" in header
    assert "# Expect: " in header
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(resolved, check_files=False) == recipe


def test_the_largest_batch_and_the_longest_warm_up_are_no_mistakes(recipe_file: Path) -> None:
    overrides = ["data.limit=64", "train.global_batch=64", "optim.warmup_epochs=2", "train.epochs=2"]
    assert load_recipe(recipe_file, overrides).data.limit == 64


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("5e-4", 0.0005),
        ("+1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0", 0),
        ("True", True),
        ("~", None),
        ("yes", "yes"),
        ("010", "010"),
        ("0.5", 0.5),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("e3", "e3"),
    ],
)
def test_an_unquoted_scalar(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_numbers_in_every_spelling(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    assert recipe.optim.lr == 0.1
    assert recipe.optim.weight_decay == 5e-4


def test_overrides(recipe_file: Path) -> None:
    recipe = load_recipe(
        recipe_file,
        [
            "data.augment.flip=true",
            "optim.name=adamw",
            "optim.betas=[0.9, 0.95]",
            "model.args.depth=34",
            "train.grad_clip=null",
            "optim.lr=1",
            "optim.lr=3e-4",
            "tracking.tags=[a, '1']",
            "model.weights=a=b.safetensors",
        ],
        check_files=False,
    )
    assert recipe.model.weights == "a=b.safetensors"
    assert recipe.data.augment.flip is True
    assert recipe.optim.betas == (0.9, 0.95)
    assert recipe.model.args == {"depth": 34}
    assert recipe.train.grad_clip is None
    assert recipe.optim.lr == 3e-4, "the last one wins"
    assert recipe.tracking.tags == ("a", "1")
    assert load_recipe(recipe_file, ["model.args.depth=34", "model.args={width: 8}"]).model.args == {"width": 8}


def test_origins(recipe_file: Path) -> None:
    places = origins(recipe_file, ["optim.lr=0.3", "model.args.depth=34"])
    assert places["optim.lr"] == "override"
    assert places["model.args.depth"] == "override"
    assert places["optim.weight_decay"] == f"{recipe_file}:5"
    assert places["train.global_batch"] == f"{recipe_file}:6"
    assert places["optim.momentum"] == "default"
    assert places["data.args"] == "default"
    assert list(places)[:2] == ["name", "seed"]


def test_a_mapping_gives_the_same_recipe(recipe_file: Path) -> None:
    mapping = {
        "name": "sample",
        "model": {"name": "resnet"},
        "optim": {"lr": 0.1, "weight_decay": 5e-4},
        "train": {"epochs": 2, "global_batch": 64},
    }
    assert parse_recipe(mapping) == load_recipe(recipe_file)
    assert parse_recipe(load_recipe(recipe_file).model_dump()) == load_recipe(recipe_file)


def test_a_recipe_is_frozen(recipe_file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe_file).seed = 3


def test_text_that_looks_like_a_number_survives_the_round_trip(recipe_file: Path, tmp_path: Path) -> None:
    tags = [
        "'1e-3'",
        "'yes'",
        "'null'",
        "'010'",
        "'0x10'",
        "'1:30'",
        "'a: b'",
        "'# x'",
        '"a\\nb"',
        "'äß'",
        "''",
        "'!x'",
    ]
    recipe = load_recipe(recipe_file, [f"tracking.tags=[{', '.join(tags)}]", "name='1e5'"])
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(resolved) == recipe


def test_the_resolved_text_holds_every_section_in_the_order_of_the_schema(recipe_file: Path) -> None:
    text = to_yaml(load_recipe(recipe_file))
    names = [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert names == list(Recipe.model_fields)
    assert "  betas: [0.9, 0.999]" in text.splitlines()


def test_files_can_be_left_unchecked(recipe_file: Path) -> None:
    overrides = ["model.weights=gone.safetensors", "data.root=/gone"]
    with pytest.raises(RecipeError):
        load_recipe(recipe_file, overrides)
    assert load_recipe(recipe_file, overrides, check_files=False).model.weights == "gone.safetensors"


def test_weights_from_a_file_or_a_run(recipe_file: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"")
    for place in (weights, tmp_path):
        assert load_recipe(recipe_file, [f"model.weights={place}"]).model.weights == str(place)
