"""TensorBoard, MLflow and trackio for real: each point once, read from their own stores, after resumes and replays."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import servers
from support.tracked_runs import Attempt, made

from cifar_lab.commands import sync
from cifar_lab.files.shipped import install
from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.tracker import Tracker

# A library or its torch module warns as it likes; it is here to read.
pytestmark = pytest.mark.filterwarnings("default")
Points = Counter[tuple[str, int, float]]


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # As under a launcher: who joined that world would wait for the other processes.
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)


def needs(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def run_of(folder: Path, *names: str) -> RunDir:
    for name in names:
        needs(name)
    return made(folder / "runs" / "tiny" / "3-abc", to=names)


def there(name: str, run: RunDir) -> Points:
    """The points of a store; of MLflow and trackio also that it holds one run."""
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.path / name), {"scalars": 0}).Reload()
        return Counter(
            (tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)
        )
    runs = run.path.parents[1]
    if name == "mlflow":
        with sqlite3.connect(runs / "mlflow.db") as database:
            assert len(database.execute("SELECT * FROM runs").fetchall()) == 1
            assert ("tiny",) in database.execute("SELECT value FROM params WHERE key = 'name'").fetchall()
            return Counter(database.execute("SELECT key, step, value FROM metrics").fetchall())
    # It reads TRACKIO_DIR when it is imported.
    program = (
        "import json\nfrom trackio.sqlite_storage import SQLiteStorage as S\n"
        "(name,) = S.get_runs('cifar-lab')\n"
        "print(json.dumps(S.get_logs('cifar-lab', name)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = json.loads(done.stdout)
    return Counter((key, line["step"], line[key]) for line in lines for key in line if "/" in key)


def contract(run: RunDir) -> Points:
    """The points of metrics.jsonl."""
    return Counter(
        (f"{line['split']}/{key}", line["step"], value)
        for line in run.metrics()
        for key, value in line.items()
        if key not in ("split", "step", "epoch", "time") and value is not None
    )


def sets_equal(found: Points, expected: Points) -> None:
    assert [(key, step) for key, step, _ in sorted(found.elements())] == [
        (key, step) for key, step, _ in sorted(expected.elements())
    ]
    for (_, _, one), (_, _, other) in zip(sorted(found.elements()), sorted(expected.elements()), strict=True):
        assert one == pytest.approx(other, rel=1e-6)  # TensorBoard keeps 32 bits


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_resumed_twice_and_replayed_each_point_is_there_once(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, name)
    first = Attempt(run).train(12).end()
    assert len(first) == 1 and "metrics.jsonl has everything" not in first[0], first
    sets_equal(there(name, run), contract(run))
    Attempt(run, 10).train(17, owe_validation=True).end()
    killed = Attempt(run, 15).train(19)
    os.kill(killed.tracker.mirrors[name].process.pid, signal.SIGKILL)
    assert any("status -9" in line or "cifar-lab sync" in line for line in killed.end())
    for _ in range(2):
        assert sync.main([str(run.path)]) == 0, capsys.readouterr().err
    sets_equal(there(name, run), contract(run))
    assert len(run.metrics()) == 22


def test_what_a_resume_took_back_is_gone_from_tensorboard(tmp_path: Path) -> None:
    run = run_of(tmp_path, "tensorboard")
    Attempt(run).train(9).end()
    assert ("train/lr", 9) in {(key, step) for key, step, _ in there("tensorboard", run)}
    Attempt(run, 5).train(7).end()
    sets_equal(there("tensorboard", run), contract(run))


def test_a_linked_folder_is_not_emptied(tmp_path: Path) -> None:
    run = run_of(tmp_path, "tensorboard")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    (run.path / "tensorboard").symlink_to(tmp_path / "mine")
    (message,) = Attempt(run).train(3).end()
    assert "symbolic link" in message
    assert (tmp_path / "mine" / "notes").exists()


def test_a_run_that_the_environment_names_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "trackio")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9")
    said = Attempt(run).train(3).end()
    assert "trackio: TRACKIO_SERVER_URL is not used" in said[0]
    sets_equal(there("trackio", run), contract(run))


def test_one_that_hangs_costs_the_timeout_and_the_other_has_everything(tmp_path: Path) -> None:
    run = run_of(tmp_path, "tensorboard", "trackio")
    attempt = Attempt(run)
    os.kill(attempt.tracker.mirrors["trackio"].process.pid, signal.SIGSTOP)
    attempt.train(12)
    said = attempt.end(timeout=20)
    assert [line for line in said if "trackio: not everything was sent within 20 s" in line]
    sets_equal(there("tensorboard", run), contract(run))
    assert not [line for line in said if line.startswith("TensorBoard") and "cifar-lab sync" in line]


def test_a_server_that_never_answers_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "mlflow")
    with servers.silent_server() as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        (message,) = Attempt(run).train(3).end()
    assert f"MLflow: {url}: timed out; metrics.jsonl has everything" in message


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_a_missing_package_is_one_line_and_the_run_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run", to=(name,))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    messages: list[str] = []
    tracker = Tracker(run, run.recipe(), True, message=messages.append)
    tracker.log("train", 1, 0.1, loss=1.0)
    tracker.finish()
    (message,) = messages
    assert f"the package {name} is not installed: {install(name)}" in message
    assert len(run.metrics()) == 1


def test_no_tracker_where_the_list_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "run", to=())
    assert Attempt(run).train(3).end() == []
    assert sorted(path.name for path in run.path.iterdir()) == [
        "env.json",
        "metrics.jsonl",
        "recipe.yaml",
        "status.json",
    ]
    assert sync.main([str(run.path)]) == 1
    assert "--to TRACKER" in capsys.readouterr().err
