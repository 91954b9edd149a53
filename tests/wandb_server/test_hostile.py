"""Servers and disks that go bad: training keeps its metrics, one line says how to send them, and that sends them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.local_wandb import Server
from support.relay import Relay, relaying
from support.tracked_runs import Attempt, identifier, made, metrics_of, whole_history

from cifar_lab.commands import sync
from cifar_lab.rundir.directory import RunDir

pytestmark = [pytest.mark.launch, pytest.mark.wandb, pytest.mark.usefixtures("environment")]


@pytest.fixture
def relay(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    with relaying(server.url) as between:
        monkeypatch.setenv("WANDB_BASE_URL", between.url)
        yield between


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB without a free byte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.decode()}")
    try:
        with pytest.raises(OSError, match="No space"):
            (folder / "filler").write_bytes(bytes(1 << 20))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def told_once(run: RunDir, messages: list[str]) -> str:
    """The only line with a warning, which says how to send."""
    (line,) = [message for message in messages if f"`cifar-lab sync {run.path}`" in message]
    assert len(messages) <= 2, messages  # the other names the page of the run
    return line


def sends_it_all(run: RunDir, server: Server, last: int) -> bool:
    assert sync.main([str(run.path)]) == 0
    return metrics_of(server.history(identifier(run))) == whole_history(last)


def test_a_server_that_falls_silent(server: Server, relay: Relay, tmp_path: Path) -> None:
    run = made(tmp_path / "run", "telling-silent")
    attempt = Attempt(run).train(6)
    attempt.wait_until(attempt.connected)
    relay.silent = True
    line = told_once(run, attempt.train(1000).end(timeout=2))
    assert "not everything was sent within 2 s" in line
    assert len(run.metrics()) == 1000 + 200
    relay.silent = False
    assert sends_it_all(run, server, 1000)


@pytest.mark.parametrize("when", ["at once", "at the end"])
def test_a_server_that_takes_no_metrics(server: Server, relay: Relay, when: str, tmp_path: Path) -> None:
    run = made(tmp_path / "run", "telling-refusing")
    if when == "at once":
        relay.refuse = 404
        attempt = Attempt(run).train(6)
        attempt.wait_until(lambda: any("gave up" in line for line in attempt.train(attempt.step + 1).messages))
    else:
        attempt = Attempt(run).train(6)
        attempt.wait_until(lambda: relay.num_metrics > 0)  # the next are sent 15 s later, or at the end
        time.sleep(0.5)
        relay.refuse = 404
    assert "gave up" in told_once(run, attempt.train(attempt.step + 5).end())
    relay.refuse = None
    assert sends_it_all(run, server, attempt.step)


def test_a_wrong_key(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run", "plain-key")
    with monkeypatch.context() as wrong:
        wrong.setenv("WANDB_API_KEY", "wrong" + "1" * 40)
        told_once(run, Attempt(run).train(6).end())
        assert sync.main([str(run.path)]) == 1
    assert sends_it_all(run, server, 6)


def test_a_full_disk(server: Server, full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run", "plain-full")
    with monkeypatch.context() as full:
        full.setenv("WANDB_DIR", str(full_disk))
        full.setenv("TMPDIR", str(full_disk))
        messages = Attempt(run).train(6).end()
        assert len(run.metrics()) == 7
    # W&B needs no disk for metrics, so they may have arrived; what has not is told.
    page = f"W&B: {server.url}/default/plain-full/runs/{identifier(run)}"
    assert messages == [page] or told_once(run, messages)
    assert sends_it_all(run, server, 6)


def test_a_full_disk_offline(server: Server, full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run", "plain-full-offline")
    with monkeypatch.context() as full:
        full.setenv("WANDB_DIR", str(full_disk))
        full.setenv("WANDB_MODE", "offline")
        assert "is its disk full?" in told_once(run, Attempt(run).train(6).end())
    assert sends_it_all(run, server, 6)
