"""A recipe by its bare name and a run by its folder: one way for all commands."""

import json
import shutil
from pathlib import Path

import pytest
from support.commands import PYTHON, ROOT, completed
from support.saved_runs import saved_run

from cifar_lab.commands import dispatch
from cifar_lab.recipe import RecipeError, load_recipe
from cifar_lab.recipe.named import find_recipe
from cifar_lab.rundir.placement import find_run

SHAPES = ["data.name=shapes", "data.val_size=1000"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    found = dispatch.main(words)
    output = capsys.readouterr()
    assert found == status, output
    return output.out + output.err


# --- recipes

# What each command answers of a recipe; nothing is trained.
OF_RECIPES = {
    "train": ["train", "resnet18", "--dry-run", "--json", *SHAPES],
    "status": ["status", "resnet18", "--json", *SHAPES],
    "plan": ["plan", "resnet18", "--gpus", "2", "train.global_batch=3"],
    "doctor": ["doctor", "resnet18", "train.epochs=-1"],
    "profile": ["profile", "resnet18", "train.epochs=-1"],
    "verify-resume": ["verify-resume", "resnet18", "train.epochs=-1"],
    "recipes": ["recipes", "show", "resnet18"],
}


@pytest.mark.parametrize("command", OF_RECIPES)
def test_a_bare_name_is_the_file(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = OF_RECIPES[command]
    file = str(ROOT / "recipes" / "resnet18.yaml")
    answers = []
    for name in ("resnet18", file):
        status = dispatch.main([name if word == "resnet18" else word for word in words])
        answers.append((status, *capsys.readouterr()))
    assert answers[0] == answers[1]
    assert "no such file" not in answers[0][2]
    assert any(part in "".join(answers[0][1:]) for part in ("resnet18", "global_batch", "override: train.epochs"))


def test_every_shipped_recipe_has_a_name(here: Path) -> None:
    for file in (ROOT / "recipes").rglob("*.yaml"):
        if file.parent.name != "sweeps":
            name = str(file.relative_to(ROOT / "recipes").with_suffix(""))
            assert find_recipe(name) == file


def test_the_recipes_of_the_current_folder_come_first(here: Path) -> None:
    (here / "recipes").mkdir()
    shutil.copy(ROOT / "recipes" / "demo.yaml", here / "recipes" / "mine.yaml")
    assert find_recipe("mine") == Path("recipes/mine.yaml")
    shutil.copy(ROOT / "recipes" / "demo.yaml", here / "mine")  # a file of that name before a name
    assert find_recipe("mine") == Path("mine")
    with pytest.raises(RecipeError, match=r"^mime: no such file \(did you mean `mine`\?\); `cifar-lab recipes` lists"):
        find_recipe("mime")
    assert find_recipe("resnet18") == ROOT / "recipes" / "resnet18.yaml"  # which only the package has
    with pytest.raises(RecipeError, match=r"^resnet18: no such file"):
        find_recipe("resnet18", here / "recipes")


def test_a_place_in_a_recipe_is_that_of_its_file(here: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipes/resnet18\.yaml:\d+: optim\.lr|override: optim\.lr"):
        load_recipe("resnet18", ["optim.lr=-1"])


def test_a_launched_process_takes_the_name(here: Path) -> None:
    done = completed([PYTHON, "-m", "cifar_lab.train", "resnet18", "--dry-run", "--json"], cwd=ROOT)
    assert json.loads(done.stdout)["recipe"]["name"]["value"] == "resnet18"


# --- runs


@pytest.fixture
def runs(here: Path) -> Path:
    """runs/own, with one completed run in it."""
    shutil.copytree(saved_run("vit").path, here / "runs" / "own" / "0-1a2b3c4d")
    return here / "runs"


OF_RUNS = {
    "evaluate": ["evaluate", "RUN", "--json"],
    "predict": ["predict", "RUN", "mistakes.png", "--json"],
    "export": ["export", "RUN", "--format", "onnx", "--out", "mistakes.png"],
    "checkpoint": ["checkpoint", "ls", "RUN"],
    "report": ["report", "RUN", "--terminal"],
    "status": ["status", "RUN", "--json"],
}


@pytest.mark.parametrize("command", OF_RUNS)
@pytest.mark.parametrize("name", ["runs", "runs/own"])
def test_a_folder_with_one_run_is_that_run(
    command: str, name: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = "runs/own/0-1a2b3c4d"
    shutil.copy(runs / "own" / "0-1a2b3c4d" / "mistakes.png", "mistakes.png")
    answers = []
    for place in (name, run):
        status = dispatch.main([place if word == "RUN" else word for word in OF_RUNS[command]])
        answers.append((status, *capsys.readouterr()))
    if command == "status":  # of a folder it is a list
        assert json.loads(answers[0][1])["runs"][0]["run_dir"] == json.loads(answers[1][1])["run_dir"]
    else:
        assert answers[0] == answers[1]
    assert answers[1][0] == (2 if command == "export" else 0)  # which finds its place taken
    assert command != "export" or "mistakes.png exists already" in answers[0][2]


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "checkpoint"])
def test_of_several_runs_one_has_to_be_named(command: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 13):
        (runs / "more" / f"{number:02}-1a2b3c4d").mkdir(parents=True)
        (runs / "more" / f"{number:02}-1a2b3c4d" / "recipe.yaml").touch()
    said = told(capsys, *("runs" if word == "RUN" else word for word in OF_RUNS[command]), status=2).splitlines()
    assert said[0] == "runs holds 13 runs; name one of them:"
    assert said[1:3] == ["  runs/more/01-1a2b3c4d", "  runs/more/02-1a2b3c4d"]
    assert said[11:] == ["  and 3 more"]


def test_a_folder_without_a_run_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty").mkdir()
    assert "empty is not a run directory, and no run is below it" in told(capsys, "checkpoint", "ls", "empty", status=2)
    said = told(capsys, "predict", "empty", "cat.jpg", status=2)
    assert said == "empty holds no model.safetensors; name a run, or a folder that holds one\n"
    assert find_run(saved_run("vit").path) == saved_run("vit").path
