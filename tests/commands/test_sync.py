"""`cifar-lab sync` without a server: what it refuses, and how it says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import servers
from support.tracked_runs import identifier, made

from cifar_lab.commands import sync
from cifar_lab.tracking.record import Identity

CLOSED = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_API_KEY", "local" + "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no recipe", "no recipe.yaml"),
        ("no project", "add --project NAME"),
        ("no server", f"{CLOSED}: [Errno 111] Connection refused"),
        ("damaged", "delete it to send the run as a new one"),
    ],
)
def test_what_cannot_be_sent(content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / "tiny" / "0"
    if content == "no recipe":
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").touch()
    else:
        made(folder, None if content == "no project" else "cifar-lab")
    if content == "damaged":
        (folder / "wandb.json").write_text('{"id": 5}')
    assert sync.main([str(tmp_path / "runs")]) == 1
    written = capsys.readouterr()
    assert f"{folder}: not sent: " in written.err
    assert said in written.err
    assert "Traceback" not in written.err + written.out


def test_one_bad_run_does_not_hide_the_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "runs" / "a", None)
    done = made(tmp_path / "runs" / "b", "cifar-lab")
    done.write_status("completed", 10, 10)
    Identity(id="abc", project="cifar-lab", whole_at=CLOSED).write(done.path)
    assert sync.main([str(tmp_path / "runs")]) == 1
    written = capsys.readouterr()
    assert "a: not sent" in written.err
    assert f"{done.path}: everything was sent before" in written.out
    Identity(id="abc", project="cifar-lab", whole_at="https://elsewhere").write(done.path)
    assert sync.main([str(done.path)]) == 1  # now the server is asked, and there is none


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync.main([str(tmp_path / "nowhere")]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_a_server_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path / "run")
    with servers.silent_server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert sync.main([str(run.path)]) == 1
    assert f"{url}: timed out" in capsys.readouterr().err
    assert len(identifier(run)) == 16
