"""What a completed run leaves, and what another start of it does."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from support.commands import write_recipe
from support.damage import rewrite
from support.small import small, with_batch_norm

from cifar_lab.data.images import load_images
from cifar_lab.errors import UsageError
from cifar_lab.models.factory import build_model
from cifar_lab.recipe import RecipeError, parse_recipe
from cifar_lab.recipe.schema import Model
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import main, run

RECIPES = {"vit": small(train__ema_decay=0.9, optim__lr=3e-3), "norm": with_batch_norm(train__epochs=2)}

# What the end writes, but for the last line of the metrics and the status.
RESULTS = ("summary.json", "mistakes.png", "mistakes.csv", "predictions.npz", "model.json", "model.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A completed run of each recipe, never to be written to."""
    folder = tmp_path_factory.mktemp("finish")
    return {name: run(recipe, run_dir=str(folder / name)).run_dir for name, recipe in RECIPES.items()}


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the first run, to be written to."""
    shutil.copytree(runs["vit"].path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def snapshot(path: Path) -> dict[str, tuple[int, str]]:
    """Time of writing and content of every file."""
    return {
        str(file.relative_to(path)): (file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def rebuilt(run_dir: RunDir) -> tuple[torch.nn.Module, dict]:
    """The model of a run from its two files alone."""
    told = json.loads((run_dir.path / "model.json").read_text())
    model = build_model(Model(name=told["name"], args=told["args"]), told["num_classes"], told["image_size"], seed=5)
    model.load_state_dict(load_file(run_dir.path / "model.safetensors"), strict=True)
    return model.eval(), told


@pytest.mark.parametrize("name", RECIPES)
def test_the_files_of_a_completed_run(runs, name):
    run_dir = runs[name]
    names = {path.name for path in run_dir.path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "attempt.json",
        "augmented.png",
        "heartbeat",
        "recipe.yaml",
        "env.json",
        "metrics.jsonl",
        "status.json",
        "summary.json",
        "predictions.npz",
        "mistakes.png",
        "mistakes.csv",
        "checkpoints",
        "model.safetensors",
        "model.json",
    }
    assert not list(run_dir.path.glob(".tmp-*"))
    status, summary = run_dir.status(), run_dir.summary()
    assert (status.state, status.reason) == ("completed", None)
    assert status.step == status.total_steps == summary["steps"]
    assert run_dir.recipe() == parse_recipe(RECIPES[name])
    assert (run_dir.path / "model.safetensors").stat().st_mode == (run_dir.path / "model.json").stat().st_mode


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_built_again_predicts_the_same(runs, name):
    model, told = rebuilt(runs[name])
    test = load_images("shapes", RECIPES[name]["data"]["args"], root=None, max_gib=1).test
    assert told["classes"] == list(test.classes)
    mean, std = (torch.tensor(told[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        probabilities = model((test.images.float() / 255 - mean) / std).softmax(1)
    stored = np.load(runs[name].path / "predictions.npz")
    assert {key: stored[key].dtype.kind for key in stored} == {
        "ids": "i", "labels": "i", "predictions": "i", "confidences": "f"
    }  # fmt: skip
    assert stored["ids"].tolist() == list(range(60))
    assert stored["labels"].tolist() == test.labels.tolist()
    assert stored["predictions"].tolist() == probabilities.argmax(1).tolist()
    assert stored["confidences"] == pytest.approx(probabilities.amax(1).numpy(), rel=1e-4)
    summary = runs[name].summary()
    assert (stored["predictions"] == stored["labels"]).mean() == pytest.approx(summary["test"]["accuracy"])
    loss = float(-probabilities.log().gather(1, test.labels[:, None]).mean())
    assert summary["test"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_timm_itself_loads_the_weights(runs):
    weights = load_file(runs["norm"].path / "model.safetensors")
    model = timm.create_model("test_efficientnet", num_classes=10)
    model.load_state_dict(weights, strict=True)
    assert torch.equal(model.conv_stem.weight, weights["conv_stem.weight"])
    assert any(name.endswith("running_var") and not (t == 1).all() for name, t in weights.items())


def test_started_again_a_completed_run_says_so_and_changes_nothing(copied, tmp_path, capsys):
    before = snapshot(copied.path)
    recipe = write_recipe(tmp_path, RECIPES["vit"])
    assert main([recipe, "--run-dir", str(copied.path), "log.every_steps=7"]) == 0
    output = capsys.readouterr()
    assert output.err == f"{copied.path} is completed already; --fresh starts a new run\n"
    assert output.out == f"{copied.path}\n"
    assert snapshot(copied.path) == before


def cut_off(run_dir: RunDir, *, keep: tuple[str, ...]) -> None:
    """As if killed at the end, before what is not in `keep` was written."""
    status = run_dir.status()
    run_dir.write_status("running", status.step, status.total_steps)
    for name in set(RESULTS) - set(keep):
        (run_dir.path / name).unlink()
    if "metrics.jsonl" not in keep:
        path = run_dir.path / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        assert '"test"' in lines[-1]
        path.write_text("".join(lines[:-1]) + lines[-1][:20])  # the line itself was cut


@pytest.mark.parametrize(
    "keep",
    [("metrics.jsonl", *RESULTS), ("metrics.jsonl", "model.safetensors"), ()],
    ids=["before the status", "after the weights", "inside the test line"],
)  # fmt: skip
def test_an_end_that_was_cut_off_is_made_up_for(copied, keep):
    test = copied.summary()["test"]
    cut_off(copied, keep=keep)
    state = sorted(copied.checkpoints.iterdir())[-1] / "state.json"
    rewrite(state, json.dumps(json.loads(state.read_text()) | {"seconds": 1e6}).encode())
    reference = snapshot(copied.path)
    metrics = [line for line in copied.metrics() if line["split"] != "test"]
    weights = load_checkpoint(copied)
    assert run(RECIPES["vit"], run_dir=str(copied.path)).completed
    lines = copied.metrics()
    assert [line for line in lines if line["split"] != "test"] == metrics
    assert [line["step"] for line in lines if line["split"] == "test"] == [20]
    assert (copied.status().state, copied.summary()["test"]) == ("completed", test)
    assert copied.summary()["wall_seconds"] > 1e6, "the seconds before the end was cut off count"
    again = load_file(copied.path / "model.safetensors")
    assert all(torch.equal(again[name], weights[name]) for name in again)
    checkpoints = {name: v for name, v in snapshot(copied.path).items() if name.startswith("checkpoints")}
    assert checkpoints == {name: v for name, v in reference.items() if name.startswith("checkpoints")}


def load_checkpoint(run_dir: RunDir) -> dict[str, torch.Tensor]:
    """The moving average of the last checkpoint."""
    (path,) = sorted(run_dir.checkpoints.iterdir())[-1].glob("ema-*")
    return load_file(path)


def test_from_python_a_mapping_and_a_file_are_one_experiment(runs, tmp_path):
    recipe = small(train__ema_decay=0.9, train__epochs=0.3)
    first = run(recipe, runs=str(tmp_path / "a"))
    path = write_recipe(tmp_path, small(train__ema_decay=0.9))
    second = run(path, overrides=["train.epochs=0.3"], runs=str(tmp_path / "b"))
    assert first.completed and second.completed
    assert first.run_dir.path.name == second.run_dir.path.name
    assert first.run_dir.path.parent == tmp_path / "a" / "small"
    weights = [load_file(outcome.run_dir.path / "model.safetensors") for outcome in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    other = run(parse_recipe(small(train__epochs=0.3, seed=1)), runs=str(tmp_path / "a"))
    assert other.run_dir.path != first.run_dir.path
    with pytest.raises(RecipeError, match="overrides go with the path"):
        run(recipe, overrides=["seed=1"], runs=str(tmp_path / "a"))


def test_fresh_starts_beside(tmp_path, capsys):
    recipe = write_recipe(tmp_path, small(train__epochs=0.3))
    command = [recipe, "--runs", str(tmp_path / "runs")]
    places = []
    for more in ([], [], ["--fresh"], [], ["--fresh"]):
        assert main([*command, *more]) == 0
        places.append(capsys.readouterr().out.strip())
    first = places[0]
    assert places == [first, first, f"{first}.2", f"{first}.2", f"{first}.3"]
    metrics = [[(m["split"], m["step"], m["loss"]) for m in RunDir(place).metrics()] for place in dict.fromkeys(places)]
    assert metrics[0] == metrics[1] == metrics[2]


def test_another_experiment_is_refused_and_named(copied, tmp_path, capsys):
    before = snapshot(copied.path)
    recipe = write_recipe(tmp_path, RECIPES["vit"])
    assert main([recipe, "--run-dir", str(copied.path), "seed=3", "optim.lr=0.5"]) == 2
    message = capsys.readouterr().err
    assert message.splitlines() == [
        f"{copied.path} holds another experiment; choose another --run-dir",
        "  optim.lr: 0.003 there, 0.5 here",
        "  seed: 0 there, 3 here",
    ]
    assert snapshot(copied.path) == before
    with pytest.raises(UsageError, match="another experiment"):
        run(small(), run_dir=str(copied.path))
