"""However a run was interrupted, offline or killed: one W&B run, continuous, each value once."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.local_wandb import Server
from support.tracked_runs import Attempt, identifier, made, metrics_of, whole_history

from cifar_lab.commands import sync

pytestmark = [pytest.mark.launch, pytest.mark.wandb, pytest.mark.usefixtures("environment")]
CLOSED = "http://127.0.0.1:9"


def test_offline_and_interrupted_attempts_become_one_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run", "histories")
    assert Attempt(run).train(10, owe_validation=True).end() == [
        f"W&B: {server.url}/default/histories/runs/{identifier(run)}"
    ]
    assert metrics_of(server.history(identifier(run)))["train/loss"] == whole_history(10)["train/loss"]
    with monkeypatch.context() as away:
        away.setenv("WANDB_BASE_URL", CLOSED)
        (message,) = Attempt(run, checkpoint=8).train(15).end()
        assert CLOSED in message
        assert f"`cifar-lab sync {run.path}`" in message
        away.setenv("WANDB_MODE", "offline")
        assert Attempt(run, checkpoint=12).train(18).end() == []
    killed = Attempt(run, checkpoint=16).train(19)
    killed.wait_until(lambda: len(server.history(identifier(run))["train/loss"]) > 10)
    killed.train(21)
    killed.kill_mirror()
    assert "-9" in killed.end()[-1]

    assert sync.main([str(run.path)]) == 0
    assert metrics_of(server.history(identifier(run))) == whole_history(21)
    assert server.runs("histories") == [identifier(run)]
    before = server.rows(identifier(run)), server.summary(identifier(run)), server.files(identifier(run))
    assert sync.main([str(run.path)]) == 0
    assert (server.rows(identifier(run)), server.summary(identifier(run)), server.files(identifier(run))) == before

    assert len(Attempt(run, checkpoint=21).train(26).end("failed")) == 1
    assert metrics_of(server.history(identifier(run))) == whole_history(26)
    assert server.summary(identifier(run))["state"] == "failed"
    assert server.summary(identifier(run))["best/val_accuracy"] == 0.25
