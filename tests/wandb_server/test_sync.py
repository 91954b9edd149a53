"""`cifar-lab sync`: who may send a run and when, and which W&B run it is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from filelock import FileLock
from support.local_wandb import Server
from support.tracked_runs import Attempt, identifier, made, metrics_of, whole_history

from cifar_lab.commands import sync

pytestmark = [pytest.mark.launch, pytest.mark.wandb, pytest.mark.usefixtures("environment")]


def test_a_run_without_network_is_sent_by_another_machine_while_it_trains(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path / "runs" / "tiny" / "run", "plain-live")
    with monkeypatch.context() as trainer:
        trainer.setenv("WANDB_MODE", "disabled")
        attempt = Attempt(run).train(6)
    assert sync.main([str(tmp_path / "runs")]) == 0
    assert metrics_of(server.history(identifier(run))) == whole_history(6)
    assert server.summary(identifier(run))["state"] == "running"
    assert server.state(identifier(run)) == "running"
    attempt.train(11)
    with FileLock(run.path / "wandb.lock"):
        assert sync.main([str(run.path)]) == 1
        assert "another process sends this run now" in capsys.readouterr().err
    attempt.end("stopped")
    assert sync.main([str(run.path)]) == 0
    assert metrics_of(server.history(identifier(run))) == whole_history(11)
    assert server.state(identifier(run)) == "finished"


def test_a_new_attempt_waits_for_the_last_ones_sender(server: Server, tmp_path: Path) -> None:
    """After kill -9 of a trainer its W&B process lives on for a while."""
    run = made(tmp_path / "run", "plain-waiting")
    with FileLock(run.path / "wandb.lock"):
        attempt = Attempt(run).train(6)
        time.sleep(3)
        assert not attempt.connected()
    attempt.wait_until(attempt.connected)
    assert len(attempt.end()) == 1
    assert metrics_of(server.history(identifier(run))) == whole_history(6)
    with FileLock(run.path / "wandb.lock"):
        (message,) = Attempt(run, checkpoint=6).train(7).end()
    assert "another process sends this run now" in message


def test_an_agent_of_a_sweep_gives_the_run_its_place(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run", "plain-recipe")
    with monkeypatch.context() as agent:
        agent.setenv("WANDB_SWEEP_ID", "sweep123")
        agent.setenv("WANDB_RUN_ID", "agents-run")
        agent.setenv("WANDB_PROJECT", "plain-sweep")
        (tmp_path / "config-agents-run.yaml").write_text("{}")  # as the agent writes it
        agent.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "config-agents-run.yaml"))
        Attempt(run).train(3).end()
        second = made(tmp_path / "second", "plain-recipe")  # what the agent started trains another run
        assert len(Attempt(second).train(6).end()) == 2
    Attempt(run, checkpoint=2).train(6).end()
    with monkeypatch.context() as other_agent:
        other_agent.setenv("WANDB_SWEEP_ID", "sweep456")
        other_agent.setenv("WANDB_RUN_ID", "another-run")
        Attempt(run, checkpoint=5).train(8).end()
        outside = made(tmp_path / "outside", "plain-recipe")
        (outside.path / "wandb.json").write_text('{"id": "begun-before", "project": "plain-recipe"}')
        Attempt(outside).train(6).end()
    assert metrics_of(server.history("agents-run")) == whole_history(8)
    assert metrics_of(server.history("begun-before")) == whole_history(6)
    assert server.runs("plain-sweep") == ["agents-run"]
    assert metrics_of(server.history(identifier(second))) == whole_history(6)
    assert sorted(server.runs("plain-recipe")) == sorted(["begun-before", identifier(second)])
    told = [(entry["name"], entry["sweep"]) for entry in server.mutations("UpsertBucket") if entry["sweep"]]
    assert [name for name, sweep in told if sweep == "sweep123"] == ["agents-run"]  # the agent's own attempt
