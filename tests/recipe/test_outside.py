"""Sources and models in files outside of the package: named by a path, known by their content."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cifar_lab.models.factory import find_family
from cifar_lab.recipe import RecipeError, experiment_id, load_recipe, outside, to_yaml

MODEL = """\
from torch import nn

def build(num_classes: int, image_size: int, *, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))
"""
SOURCE = """\
def load(split: str, *, root: str | None, num: int = 200): ...
def cache_key(**args): return "1"
def info(**args): return None
"""
RECIPE = """\
name: mine
data: {name: ./source.py}
model: {name: code/model.py, args: {width: 4}}
optim: {lr: 0.1}
train: {epochs: 2, global_batch: 32}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe with its two files, away from the working folder."""
    place = tmp_path / "mine"
    (place / "code").mkdir(parents=True)
    (place / "recipe.yaml").write_text(RECIPE)
    (place / "source.py").write_text(SOURCE)
    (place / "code" / "model.py").write_text(MODEL)
    return place


def problems_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value.problems


def test_the_content_is_the_identity_and_the_path_is_not(folder: Path, tmp_path: Path) -> None:
    first = load_recipe(folder / "recipe.yaml")
    assert first.model.name.startswith("model.py#") and first.data.name.startswith("source.py#")
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    (moved / "code" / "model.py").rename(moved / "renamed.py")
    (moved / "recipe.yaml").write_text(RECIPE.replace("code/model.py", "./renamed.py"))
    again = load_recipe(moved / "recipe.yaml")
    assert again.model.name.startswith("renamed.py#")
    assert experiment_id(again) == experiment_id(first)
    for file in ("renamed.py", "source.py"):
        with (moved / file).open("a") as open_file:
            open_file.write("\n")
        changed = load_recipe(moved / "recipe.yaml")
        assert experiment_id(changed) != experiment_id(again)
        again = changed


def test_an_override_is_seen_from_the_working_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.py").write_text(MODEL.replace("width", "depth"))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(folder / "recipe.yaml", ["model.name=./here.py", "model.args={depth: 2}"])
    assert outside.place(recipe.model.name) == tmp_path / "here.py"
    assert outside.place(recipe.data.name) == folder / "source.py"


def test_arguments_are_checked_without_importing(folder: Path) -> None:
    (folder / "code" / "model.py").write_text(f"import a_module_that_does_not_exist\n{MODEL}")
    assert load_recipe(folder / "recipe.yaml").model.args == {"width": 4}
    assert problems_of(folder / "recipe.yaml", "model.args={widht: 4}", "data.args={num: x, root: a}") == [
        "override: model.args.widht: `model.py` has no such argument (did you mean `width`?)",
        "override: data.args.root: is set by the trainer from the data; delete it",
        'override: data.args.num: Input should be a valid integer, found "x"',
    ]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("code/model.py", None, "3: model.name: there is no file {}; correct the path, which is seen from {folder}"),
        ("code/model.py", "def build(:\n", "3: model.name: {}:1: invalid syntax; correct that file"),
        ("code/model.py", "", "3: model.name: {} has no function `build`, so it is not a model family"),
        ("source.py", MODEL, "2: data.name: {} has no function `load`, so it is not a data source"),
        ("source.py", SOURCE.replace("cache_key", "key"), "2: data.name: {} has no function `cache_key`, so it is not"),
    ],
)
def test_a_file_that_is_none(folder: Path, file: str, text: str | None, said: str) -> None:
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    (problem,) = problems_of(folder / "recipe.yaml")
    assert problem.startswith(f"{folder / 'recipe.yaml'}:{said.format(folder / file, folder=folder)}")


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    (folder / "code" / "source.py").write_text(MODEL)
    (problem,) = problems_of(folder / "recipe.yaml", "model.name=" + str(folder / "code" / "source.py"))
    assert "are two files of one name, of which a run keeps both; rename one" in problem


def test_a_resolved_recipe_needs_the_same_file_or_none(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "recipe.yaml").write_text(to_yaml(recipe))
    assert experiment_id(load_recipe(kept / "recipe.yaml", check_files=False)) == experiment_id(recipe)
    (kept / "model.py").write_text(MODEL + "\n")
    (problem,) = problems_of(kept / "recipe.yaml")
    assert f"model.name: {kept / 'model.py'} is another file than {recipe.model.name} was; bring that back" in problem


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("import a_module_that_does_not_exist", "ModuleNotFoundError: No module named 'a_module_that_does_not_exist'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_an_error_in_its_import_is_one_line(folder: Path, line: str, error: str) -> None:
    file = folder / "code" / "model.py"
    file.write_text(f"# first\n{line}\n{MODEL}")
    with pytest.raises(RecipeError) as caught:
        find_family(load_recipe(folder / "recipe.yaml").model.name)
    assert caught.value.problems == [f"{file}:2: {error}; correct that file"]


def test_it_is_imported_once_and_leaves_no_bytecode(folder: Path, tmp_path: Path) -> None:
    (folder / "code" / "model.py").write_text(f"{MODEL}\nCALLS = []\n")
    module = find_family(load_recipe(folder / "recipe.yaml").model.name)
    assert module.build.__annotations__["width"] is int  # as Python has it, not as text
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert find_family(load_recipe(copy / "recipe.yaml").model.name) is module
    assert not list(folder.rglob("__pycache__"))


def test_a_change_between_reading_and_importing_is_told(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    (folder / "code" / "model.py").write_text(f"{MODEL}# later\n")
    with pytest.raises(RecipeError, match="was changed or removed after the recipe was read; bring model"):
        find_family(recipe.model.name)
