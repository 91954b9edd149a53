"""A real run, stopped and continued: everything about it arrives, and people can look at it."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.chromium import Chromium, missing
from PIL import Image
from support.local_wandb import Server
from support.runs import train
from support.small import small
from support.tracked_runs import identifier

from cifar_lab.commands import sync
from cifar_lab.files.contact_sheet import cut_tile
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import run as run_recipe

pytestmark = [pytest.mark.launch, pytest.mark.wandb]
PROJECT = "study"
RECIPE = small(tracking={"wandb_project": PROJECT, "tags": ["tiny", "vit"]}, seed=7, checkpoint={"every_steps": 5})


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDir]:
    """Stopped after step 8, then continued to its end."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        for name, value in {**server.environment, "CIFAR_LAB_CACHE": str(folder / "cache")}.items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as stopping:
            train(RECIPE, folder / "run", stop_at=8, monkeypatch=stopping)
        outcome = run_recipe(RECIPE, run_dir=str(folder / "run"))
        assert outcome.completed
        yield outcome.run_dir


@pytest.fixture(scope="module")
def copied(run: RunDir, server: Server, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same run as if W&B had been off, sent afterwards."""
    folder = tmp_path_factory.mktemp("copied") / "run"
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("wandb*"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WANDB_MODE", "offline")  # what the machine that trained has
        assert sync.main([str(folder), "--project", "study-later"]) == 0
        assert sync.main([str(folder), "--project", "elsewhere"]) == 1
    return RunDir(folder)


def test_one_run_with_each_value_once(run: RunDir, server: Server) -> None:
    name = identifier(run)
    assert name in server.runs(PROJECT)
    history = server.history(name)
    lines = run.metrics()
    for split, order in {"train": 0, "val": 1, "test": 2}.items():
        expected = [(4 * line["step"] + order, line["loss"]) for line in lines if line["split"] == split]
        assert expected
        assert history[f"{split}/loss"] == expected
    assert [value for _, value in history["step"]] == [line["step"] for line in lines]
    assert [value for _, value in history["epoch"]] == [line["epoch"] for line in lines]


def test_what_it_is_called_and_made_of(run: RunDir, server: Server) -> None:
    name = identifier(run)
    inputs = [entry.get("input", entry) for entry in server.mutations("UpsertBucket")]
    told = next(entry for entry in inputs if entry["name"] == name)
    assert (told["groupName"], told["jobType"], sorted(told["tags"])) == ("small", "train", ["tiny", "vit"])
    config = server.config(name)
    env = run.env()
    assert config["seed"] == 7
    assert config["optim"]["weight_decay"] == 0.05
    assert config["revision"] == env["revision"]
    assert config["topology"]["world_size"] == 1
    assert config["environment"]["packages"] == env["packages"]
    axes = axes_of(config)
    assert (axes["val/*"], axes["test/*"], axes["train/*"]) == ("epoch", "epoch", "step")


def axes_of(config: dict[str, Any]) -> dict[str, str]:
    """The axis that `define_metric` gave to each metric; W&B numbers fields and entries."""
    metrics = config["_wandb"]["m"]
    return {entry["2"]: metrics[int(entry["5"]) - 1]["1"] for entry in metrics if "5" in entry and "2" in entry}


def test_final_numbers(run: RunDir, server: Server) -> None:
    told, summary = server.summary(identifier(run)), run.summary()
    assert summary is not None
    assert told["state"] == "completed"
    assert told["final/test_accuracy"] == summary["test"]["accuracy"]
    assert told["final/num_parameters"] == summary["num_parameters"]
    assert told["best/val_accuracy"] == max(line["accuracy"] for line in run.metrics() if line["split"] == "val")


def artifact_folder(server: Server, name: str, run: str = "%") -> Path:
    """Where the server put an artifact's files."""
    ((number,),) = server.query("select id from artifacts where name = ? and run_id like ?", name, run)
    return server.data / "artifacts" / str(number)


@pytest.mark.parametrize("which", ["run", "copied"])
def test_pictures_and_tables(which: str, server: Server, request: pytest.FixtureRequest) -> None:
    run: RunDir = request.getfixturevalue(which)
    rows = server.rows(identifier(run))
    media = {key: value for row in rows for key, value in row.items() if isinstance(value, dict)}
    files = server.files(identifier(run))
    for name, local in {"augmented": "augmented.png", "mistakes_sheet": "mistakes.png"}.items():
        assert files[media[name]["path"]].read_bytes() == (run.path / local).read_bytes()
    tables = {
        name: json.loads(files[entry["path"]].read_text())["data"] for name, entry in media.items() if "nrows" in entry
    }
    assert set(tables) == {"mistakes", "confusion_table", "class_accuracy_table"}

    with np.load(run.path / "predictions.npz") as predictions:
        labels, guesses = predictions["labels"], predictions["predictions"]
    folder = artifact_folder(server, f"run-{identifier(run)}-mistakes")
    rows = json.loads((folder / "mistakes.table.json").read_text())["data"]
    assert len(rows) == min(64, int((labels != guesses).sum()))
    assert all(truth != guess for _, _, truth, guess, _ in rows)
    assert [row[4] for row in rows] == sorted((row[4] for row in rows), reverse=True)
    with Image.open(folder / rows[9][0]["path"]) as picture, Image.open(run.path / "mistakes.png") as sheet:
        assert picture.tobytes() == cut_tile(sheet, 9).tobytes()

    confusion = {(actual, predicted): count for actual, predicted, count in tables["confusion_table"]}
    assert sum(confusion.values()) == len(labels)
    for name, accuracy, count in tables["class_accuracy_table"]:
        assert confusion[(name, name)] == pytest.approx(accuracy * count)


@pytest.mark.parametrize("which", ["run", "copied"])
def test_the_weights(which: str, server: Server, request: pytest.FixtureRequest) -> None:
    run: RunDir = request.getfixturevalue(which)
    ((name, metadata),) = server.artifacts(identifier(run), "model")
    assert name == "small"
    assert metadata["recipe"]["model"] == run.recipe().model_dump(mode="json")["model"]
    assert metadata["summary"]["test"] == run.summary()["test"]
    inputs = [entry["input"] for entry in server.mutations("CreateArtifact")]
    (made,) = [
        entry for entry in inputs if entry["artifactTypeName"] == "model" and entry["runName"] == identifier(run)
    ]
    assert {alias["alias"] for alias in made["aliases"]} == {"latest", "final", "seed-7", "run"}
    folder = artifact_folder(server, "small", identifier(run))
    for file in ("model.safetensors", "model.json", "recipe.yaml"):
        assert (folder / file).read_bytes() == (run.path / file).read_bytes()


def test_a_copy_without_weights_and_pictures(
    run: RunDir, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the committed results are."""
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("wandb*", "*.safetensors", "*.png", "checkpoints"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert sync.main([str(copy), "--project", "study-copies"]) == 0
    assert "sent without weights: this copy of the run has none" in capsys.readouterr().out
    name = identifier(RunDir(copy))
    assert server.state(name) == "finished"
    assert server.summary(name)["final/test_accuracy"] == run.summary()["test"]["accuracy"]
    assert server.artifacts(name, "model") == []


def test_nothing_is_left_to_sync(run: RunDir, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    before = (server.data / "mutations.jsonl").read_text(), server.rows(identifier(run))
    assert sync.main([str(run.path)]) == 0
    assert "everything was sent before" in capsys.readouterr().out
    assert ((server.data / "mutations.jsonl").read_text(), server.rows(identifier(run))) == before


@pytest.mark.browser
def test_people_see_it(run: RunDir, copied: RunDir, server: Server, tmp_path: Path) -> None:
    if problem := missing():
        if "browser" in os.environ.get("CIFAR_LAB_REQUIRE", ""):
            pytest.fail(problem)
        pytest.skip(problem)
    with Chromium(tmp_path / "profile") as browser:
        browser.open(f"{server.url}/login", width=1280)
        login = urllib.request.Request(
            f"{server.url}/api/v2/auth/login",
            json.dumps({"username": "admin", "password": "admin123"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(login) as answer:
            cookie = answer.headers["Set-Cookie"].split(";")[0]
        browser.run("document.cookie = arguments[0] + '; path=/'", cookie)
        browser.open(f"{server.url}/projects/default/{PROJECT}", width=1280)
        assert "small-run" in browser.run("return document.body.innerText")
        browser.open(f"{server.url}/runs/default/{PROJECT}/{identifier(run)}", width=1280)
        seen(browser, "return ['small-run', 'finished', 'grad_norm'].every(t => document.body.innerText.includes(t))")
        click = (
            "[...document.querySelectorAll('*')].find(e => !e.children.length && e.innerText == arguments[0]).click()"
        )
        browser.run(click, "Media")
        seen(browser, "return [...document.images].filter(image => image.naturalWidth >= 840).length == 2")
        browser.run(click, "Artifacts")
        seen(browser, "return ['model', 'confusion_table'].every(text => document.body.innerText.includes(text))")


def seen(browser: Chromium, script: str, seconds: float = 30) -> None:
    """Wait until the page shows what the script looks for."""
    deadline = time.monotonic() + seconds
    while not browser.run(script):
        assert time.monotonic() < deadline, browser.run("return document.body.innerText")
        time.sleep(0.1)
