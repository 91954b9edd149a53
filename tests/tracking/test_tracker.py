"""metrics.jsonl always; W&B for real: offline, without a server, with one that never answers, killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import servers
from support.tracked_runs import identifier, made, recipe

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking import tracker as tracking
from cifar_lab.tracking.tracker import Tracker

KEY = "local" + "0" * 40


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "cache"))
    return made(tmp_path / "run")


@pytest.fixture
def silent_server() -> Iterator[str]:
    with servers.silent_server() as url:
        yield url


@pytest.fixture
def greeting_server() -> Iterator[str]:
    with servers.greeting_server() as url:
        yield url


def track(run: RunDir, timeout: float | None, is_main: bool = True, project: str | None = "cifar-lab") -> list[str]:
    """A short run; returns what the user was told."""
    messages: list[str] = []
    tracker = Tracker(run, recipe(project), is_main, message=messages.append)
    for step in range(1, 4):
        tracker.log("train", step, step / 2, loss=1 / step)
    tracker.log("val", 3, 1.5, loss=0.5, accuracy=0.25)
    tracker.finish(timeout)
    tracker.finish(timeout)
    return messages


def offline_files(run: RunDir) -> list[Path]:
    return sorted((run.path / "wandb").glob("offline-run-*/*.wandb"))


def test_without_a_project_only_metrics_are_written(run: RunDir) -> None:
    assert track(run, 5, project=None) == []
    assert [(line["split"], line["step"], line["epoch"]) for line in run.metrics()] == [
        ("train", 1, 0.5),
        ("train", 2, 1.0),
        ("train", 3, 1.5),
        ("val", 3, 1.5),
    ]
    assert not (run.path / "wandb.json").exists()


def test_other_ranks_do_nothing(run: RunDir) -> None:
    assert track(run, 5, is_main=False) == []
    assert sorted(path.name for path in run.path.iterdir()) == ["env.json", "recipe.yaml", "status.json"]


def test_offline_run_holds_metrics_config_and_group(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert track(run, 20) == []
    (file,) = offline_files(run)
    content = file.read_bytes()
    for text in ("train/loss", "val/accuracy", "global_batch", "world_size", "cifar-lab", "tiny", "test"):
        assert text.encode() in content, text
    assert identifier(run) in file.name
    assert len(run.metrics()) == 4


def test_without_a_key_one_line_and_no_waiting_for_the_telemetry_of_wandb(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting_server: str
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("WANDB_BASE_URL", greeting_server)
    (message,) = track(run, 8)  # W&B's own exit hooks take 10 s here.
    assert "API key" in message
    assert f"`cifar-lab sync {run.path}`" in message
    assert not list((tmp_path / "scratch").glob("*wandb-media"))
    assert not list((tmp_path / "scratch").glob("cifar_lab-*"))


def test_every_offline_file_holds_the_whole_run_under_one_id(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wandb sync` of several lets the last one overwrite the others."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run.append_metrics(split="train", step=0, epoch=0.0, earlier=1.0)
    assert track(run, 20) == track(run, 20) == []
    first, second = offline_files(run)
    assert first.name == second.name == f"run-{identifier(run)}.wandb"
    assert all(b"train/earlier" in path.read_bytes() for path in (first, second))


def test_a_damaged_record_ends_no_run_and_is_told(run: RunDir) -> None:
    (run.path / "wandb.json").write_text("{")
    (message,) = track(run, 5)
    assert "wandb.json" in message
    assert "delete it" in message
    assert len(run.metrics()) == 4


def test_disabled_by_the_user_starts_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert track(run, 5) == []
    assert not (run.path / "wandb").exists()


def test_closed_port_is_one_line(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (message,) = track(run, 20)
    assert "Connection refused" in message
    assert f"`cifar-lab sync {run.path}`" in message
    assert not offline_files(run)


def test_server_that_never_answers_costs_no_more_than_the_timeout(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    (message,) = track(run, 1.5)
    assert "not everything was sent within 1.5 s" in message
    assert f"cifar-lab sync {run.path}" in message
    assert len(run.metrics()) == 4
    assert not list((tmp_path / "scratch").glob("cifar_lab-*"))


def test_the_end_of_a_completed_run_leaves_time_for_its_weights(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setattr(tracking, "END_SECONDS", 0.5)
    with open(run.path / "model.safetensors", "wb") as file:
        file.truncate(1_000_000)  # a quarter of a second
    (message,) = track(run, None)
    assert "not everything was sent within 0.75 s" in message


def test_logging_never_waits_for_wandb(run: RunDir, monkeypatch: pytest.MonkeyPatch, silent_server: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    tracker = Tracker(run, recipe(), True, message=lambda line: None)
    pid = tracker.mirrors["wandb"].process.pid
    os.kill(pid, signal.SIGSTOP)  # who waits for it now waits for ever
    for step in range(2000):
        tracker.log("train", step, 0.0, text="x" * 100)
    tracker.finish(0.1)
    assert len(run.metrics()) == 2000
    assert not alive(pid)


def test_killed_wandb_process_is_one_line_and_training_goes_on(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    messages: list[str] = []
    tracker = Tracker(run, recipe(), True, message=messages.append)
    os.kill(tracker.mirrors["wandb"].process.pid, signal.SIGKILL)
    tracker.mirrors["wandb"].process.wait(5)
    for step in range(5):
        tracker.log("train", step, 0.0, loss=1.0)
    tracker.finish()
    (message,) = messages
    assert "-9" in message
    assert "cifar-lab sync" in message
    assert len(run.metrics()) == 5


def test_missing_package_is_one_line(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder named wandb, such as W&B itself makes, is not the package.
    (run.path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(run.path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)  # another test may have imported it
    (message,) = track(run, 5)
    assert "not installed" in message
    assert len(run.metrics()) == 4


def test_user_settings_win_and_the_rest_goes_below_run_and_cache(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    assert track(run, 20) == []
    assert len(list((tmp_path / "mine" / "wandb").glob("offline-run-*"))) == 1
    assert not (run.path / "wandb").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "mine", "cache", ".config", ".local", ".cache"}


def test_when_the_trainer_is_killed_nothing_is_left_running(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    program = (
        "import os, sys\n"
        "from cifar_lab.rundir.directory import RunDir\nfrom cifar_lab.tracking.tracker import Tracker\n"
        "run = RunDir(sys.argv[1])\ntracker = Tracker(run, run.recipe(), True, print)\n"
        "tracker.log('train', 1, 0.5, loss=1.0)\n"
        "print(tracker.mirrors['wandb'].process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(run.path)], capture_output=True, timeout=30)
    assert done.returncode == -9
    pid, deadline = int(done.stdout), time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (file,) = offline_files(run)
    assert b"train/loss" in file.read_bytes()


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
