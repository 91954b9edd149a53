"""`cifar-lab status --decide`: what a batch job asks before its step and after it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import write_recipe
from support.run_dirs import held_and_left, held_elsewhere, run_dir
from support.small import small
from support.status_command import as_job, ask, isolate

from cifar_lab.recipe import load_recipe
from cifar_lab.rundir.directory import RunDir


@pytest.fixture(autouse=True)
def folder_of_its_own(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def recipe(tmp_path) -> str:
    return write_recipe(tmp_path, small())


def test_a_job_starts_comes_back_and_gives_up(tmp_path, capsys, recipe, monkeypatch):
    path = Path(ask(capsys, recipe, "--where")[1].strip())
    for restart in range(3):
        as_job(monkeypatch, 17, restart)
        assert ask(capsys, recipe, "--decide", "start") == (0, "go: from the beginning\n", "")
        run_dir(path, "interrupted", reason="a link was cut", attempt=restart + 1)
        (path / "recipe.yaml").unlink()
        held_and_left(path, job_id="17")
        code, out, _ = ask(capsys, recipe, "--decide", "end", "--exit-status", "1")
        assert (code, out.split(":")[0]) == ((75, "requeue") if restart < 2 else (1, "failed"))
    assert "given up: 3 starts together saved 0 steps of the 1 " in ask(capsys)[1]
    as_job(monkeypatch, 18)
    assert ask(capsys, recipe, "--accept-micro-batch", "--decide", "start")[0] == 0  # a job hands on all it was given
    RunDir(path).write_status("completed", 100, 100, attempt=3)
    assert ask(capsys, recipe, "--decide", "start") == (3, "completed: nothing is left to do\n", "")


def test_another_living_job_is_not_disturbed(tmp_path, capsys, recipe, monkeypatch):
    as_job(monkeypatch, 17)
    path = Path(ask(capsys, recipe, "--where")[1].strip())
    run_dir(path, "running")
    (path / "recipe.yaml").unlink()
    held_elsewhere(path, job_id="9")
    ask_start = (recipe, "--decide", "start")
    (tmp_path / "queue").write_text("9|9|RUNNING|node1|None\n")
    assert ask(capsys, *ask_start) == (1, "busy: the run is in use by job 9\n", "")
    # Its end may be seconds old; the trainer waits for silence by itself.
    (tmp_path / "queue").write_text("9|9|COMPLETING|node1|None\n")
    assert ask(capsys, *ask_start)[0] == 0
    assert ask(capsys, recipe, "--decide", "end", "--exit-status", "1")[0] == 1
    as_job(monkeypatch, 9)
    assert ask(capsys, recipe, "--decide", "end", "--exit-status", "137")[0] == 75


def test_fresh_is_one_run_a_job(tmp_path, capsys, recipe, monkeypatch):
    first = RunDir.locate(load_recipe(recipe), runs="runs").path
    first.mkdir(parents=True)
    as_job(monkeypatch, 17)
    assert ask(capsys, recipe, "--fresh", "--decide", "start")[0] == 0
    for restart in (0, 1):
        as_job(monkeypatch, 17, restart)
        assert ask(capsys, recipe, "--fresh", "--where")[1] == f"{first}.2\n"
    as_job(monkeypatch, 18)
    assert ask(capsys, recipe, "--fresh", "--where")[1] == f"{first}.3\n"


def test_a_bad_recipe_is_refused_and_missing_weights_are_shown(tmp_path, capsys, recipe, monkeypatch):
    as_job(monkeypatch, 17)
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(recipe).read_text().replace("lr:", "rate:"))
    code, out, err = ask(capsys, bad, "--decide", "start")
    assert (code, out) == (2, "")
    assert "bad.yaml:" in err
    assert "optim.rate" in err
    assert ask(capsys, bad)[0] == 2
    code, out, _ = ask(capsys, recipe, "model.weights=/no/such", "--decide", "start")
    assert (code, out.split(": ")[0]) == (2, "failed")
    assert "/no/such does not exist" in ask(capsys)[1]


def test_a_directory_with_a_jobs_files_only_is_free_for_the_trainer(tmp_path, capsys, recipe, monkeypatch):
    as_job(monkeypatch, 17)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/job.json").write_text('{"job_id": "17", "submitted": 1}')
    assert ask(capsys, recipe, "--run-dir", "run", "--decide", "start")[0] == 0
    assert sorted(os.listdir("run")) == ["job.json", "requeues.jsonl"]
    loaded = load_recipe(recipe)
    assert RunDir.locate(loaded, run_dir="run").path == tmp_path / "run"


def test_a_decision_that_cannot_be_kept_never_requeues(tmp_path, capsys, recipe, monkeypatch):
    as_job(monkeypatch, 17)
    (tmp_path / "run/requeues.jsonl").mkdir(parents=True)
    for when in ("start", "end"):
        code, out, err = ask(capsys, recipe, "--run-dir", "run", "--decide", when, "--exit-status", "75")
        assert code == 1
        assert "cannot be kept" in out
        assert "requeues.jsonl" in err
