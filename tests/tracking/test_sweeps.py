"""Which W&B run a directory is, whatever an agent of a sweep or a shell says; W&B for real, offline."""

import json
import os
from pathlib import Path

import pytest
from support.tracked_runs import identifier, made, recipe

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.tracker import Tracker

AGENT = {"WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "agents-run", "WANDB_PROJECT": "of-the-sweep"}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {**AGENT, "WANDB_MODE": "offline", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "cache"))


def told(run: RunDir) -> list[str]:
    """What a short run tells the user."""
    messages: list[str] = []
    tracker = Tracker(run, recipe(), True, message=messages.append)
    tracker.log("train", 1, 0.5, loss=1.0)
    tracker.finish(20)
    return messages


def ids_sent(run: RunDir) -> list[str]:
    """The ids in the names of W&B's files."""
    return [path.stem.rpartition("run-")[2] for path in sorted((run.path / "wandb").glob("offline-run-*/*.wandb"))]


def test_only_an_agent_gives_an_id_and_to_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = tmp_path / "wandb" / "sweep-sweep123" / "config-agents-run.yaml"
    parameters.parent.mkdir(parents=True)
    exported = made(tmp_path / "exported")
    (line,) = told(exported)  # all three in a shell
    ignored = "W&B: WANDB_RUN_ID=agents-run is ignored: this directory is the run "
    assert line.startswith(f"{ignored}{identifier(exported)}; a directory takes its id only from `wandb agent`")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    no_file = made(tmp_path / "no-file")
    assert len(told(no_file)) == 1
    parameters.write_text("{}")  # as the agent does before each run
    assert len(told(no_file)) == 1  # a directory stays what it was
    first, second, third = (made(tmp_path / name) for name in ("first", "second", "third"))
    assert told(first) == []
    assert len(told(second)) == 1  # what the agent started trains another run
    assert told(first) == []
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert len(told(third)) == 1
    runs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/wandb.json")}
    assert len({run["id"] for run in runs.values()}) == len(runs) == 5
    assert runs["first"]["id"] == "agents-run"
    assert [name for name, run in runs.items() if run["project"] == "of-the-sweep"] == ["first"]
    for run in (exported, no_file, first, second, third):
        assert set(ids_sent(run)) == {identifier(run)}
