"""Arguments of families and sources, read from the syntax tree of their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.recipe import RecipeError, load_recipe, plugins

FAMILY = """
from __future__ import annotations
import a_module_that_does_not_exist
from typing import Literal, Optional

Activation = Literal["relu", "gelu"]

def build(num_classes: int, image_size: int, *, size: "int", rate: float = 0.0, act: Activation = "relu",
          on: bool = False, maybe: Optional[str] = None, both: int | None = None, pair: tuple[int, int] = (1, 2),
          many: list[float] = [], unknown: a_module_that_does_not_exist.Thing = None):
    ...
"""
SOURCE = "def load(split: str, *, root: str | None, **args): ...\ndef cache_key(**args): ...\ndef info(**args): ..."
RECIPE = """\
name: sample
data: {name: own, args: {anything: 1}}
model: {name: family}
optim: {lr: 0.1}
train: {epochs: 2, global_batch: 64}
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAMILIES", "SOURCES"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr(plugins, name, replace(getattr(plugins, name), folder=folder))
    (tmp_path / "FAMILIES" / "family.py").write_text(FAMILY)
    (tmp_path / "FAMILIES" / "_helper.py").write_text("")
    (tmp_path / "FAMILIES" / "empty.py").write_text("")
    (tmp_path / "FAMILIES" / "torn.py").write_text("def build(:\n")
    (tmp_path / "SOURCES" / "own.py").write_text(SOURCE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (
            "{size: 3, rate: 1, act: gelu, on: true, maybe: x, both: 4, pair: [1, 2], many: [1, 0.5], unknown: {a: 1}}",
            None,
        ),
        ("{size: 3, maybe: null, both: null}", None),
        ("{}", "size: is missing; `family` needs it"),
        ("{size: 3.5}", "size: Input should be a valid integer, found 3.5"),
        ("{size: true}", "size: Input should be a valid integer, found true"),
        ("{size: 3, rate: fast}", 'rate: Input should be a valid number, found "fast"'),
        ("{size: 3, act: Gelu}", "act: Input should be 'relu' or 'gelu', found \"Gelu\" (did you mean `gelu`?)"),
        ("{size: 3, on: 1}", "on: Input should be true or false, found 1"),
        ("{size: 3, maybe: 4}", "maybe: Input should be a valid string, found 4"),
        ("{size: 3, both: x}", 'both: Input should be a valid integer, found "x"'),
        ("{size: 3, pair: [1]}", "pair[1]: Field required, found [1]"),
        ("{size: 3, many: [a]}", 'many[0]: Input should be a valid number, found "a"'),
        ("{size: 3, rat: 0.5}", "rat: `family` has no such argument (did you mean `rate`?)"),
        ("{size: 3, image_size: 32}", "image_size: is set by the trainer from the data; delete it"),
    ],
)
@pytest.mark.usefixtures("folders")
def test_arguments(tmp_path: Path, args: str, problem: str | None) -> None:
    path, overrides = tmp_path / "recipe.yaml", [f"model.args={args}"]
    if problem is None:
        assert load_recipe(path, overrides).model.args["size"] == 3
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert caught.value.problems == [f"override: model.args.{problem}"]


@pytest.mark.parametrize(
    ("name", "fix"),
    [("empty", "empty.py has no function `build`"), ("torn", "torn.py:1: "), ("_helper", "there is no model family")],
)
@pytest.mark.usefixtures("folders")
def test_files_that_are_no_family(tmp_path: Path, name: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml", [f"model.name={name}"])
    assert [fix in problem for problem in caught.value.problems] == [True]


def test_every_shipped_family_and_source_can_be_read(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"no_such_argument": 1}
    for kind in (plugins.FAMILIES, plugins.SOURCES):
        assert kind.names()
        for name in kind.names():
            section = kind.section
            path = tmp_path / "shipped.yaml"
            path.write_text(RECIPE.replace("{name: own, args: {anything: 1}}", "{}").replace("family", "resnet"))
            with pytest.raises(RecipeError) as caught:
                load_recipe(path, [f"{section}.name={name}", f"{section}.args={wrong}".replace("'", "")])
            expected = f"override: {section}.args.no_such_argument: `{name}` has no such argument"
            assert any(problem.startswith(expected) for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("kind", [plugins.FAMILIES, plugins.SOURCES], ids=lambda kind: kind.section)
def test_every_shipped_argument_says_what_it_means(kind: plugins.Kind) -> None:
    for name in kind.names():
        arguments = kind.arguments(name)
        assert arguments is not None
        silent = [field.alias for field in arguments.model_fields.values() if not field.description]
        assert not silent, f"{kind.folder / name}.py: Annotated[..., Field(description=...)] for {silent}"


@pytest.mark.usefixtures("folders")
def test_meanings_and_defaults_are_read_without_importing(tmp_path: Path) -> None:
    text = FAMILY.replace("rate: float = 0.0", 'rate: Annotated[float, Field(lt=1, description="How often.")] = a.B')
    (tmp_path / "FAMILIES" / "family.py").write_text(text)
    arguments = plugins.FAMILIES.arguments("family")
    assert arguments is not None
    properties = arguments.model_json_schema()["properties"]
    assert properties["rate"]["description"] == "How often."
    assert properties["rate"]["exclusiveMaximum"] == 1
    assert {name: value["default"] for name, value in properties.items() if name != "size"} == {
        "rate": "a.B",
        "act": "relu",
        "on": False,
        "maybe": None,
        "both": None,
        "pair": [1, 2],
        "many": [],
        "unknown": None,
    }
