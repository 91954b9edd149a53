"""A small study that is stopped, killed and continued, on real processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import PYTHON, ROOT, environment

from cifar_lab.rundir.directory import RunDir
from cifar_lab.status.state import read_run

STUDY = """\
about: three runs of seconds, the last of which cannot succeed
overrides: >-
  data.name=shapes data.args='{num_train: 400, num_test: 100}' data.val_size=100 model.args.width=16 train.epochs=null
  train.global_batch=50 optim.warmup_epochs=0 log.every_steps=1
runs:
  quick: {recipe: demo, overrides: train.steps=2}
  slow: {recipe: demo, overrides: train.steps=400, seeds: [7]}
  diverges: {recipe: demo, overrides: train.steps=4 optim.lr=1e30}
"""


class Driver:
    """Starts the same study again and again."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        (folder / "mine.yaml").write_text(STUDY)
        self.call = [
            PYTHON,
            "-m",
            "cifar_lab.commands.study",
            "--scale",
            str(folder / "mine.yaml"),
            "--runs",
            str(self.runs),
        ]

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.call, *more],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *more: str) -> tuple[int, str, str]:
        process = self.start(*more)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def path(self, name: str) -> Path:
        (found,) = (self.runs / name).iterdir()
        return found


def wait_for(what: str, holds: object, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.05)


def train_steps(path: Path) -> list[int]:
    return [line["step"] for line in RunDir(path).metrics() if line["split"] == "train"]


@pytest.mark.launch
def test_stopped_killed_and_continued(tmp_path: Path) -> None:
    driver = Driver(tmp_path)

    def slow_is_at(step: int) -> bool:
        return (
            any((driver.runs / "slow").glob("*/metrics.jsonl")) and max([0, *train_steps(driver.path("slow"))]) > step
        )

    first = driver.start()
    wait_for("the second run trains", lambda: slow_is_at(2))
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 75, said
    assert "[1/3] quick seed 0: completed, test error" in said
    assert "stopped by SIGTERM: the same command continues" in said
    slow, quick = driver.path("slow"), driver.path("quick")
    stopped = read_run(slow)
    assert (stopped.effective_state, stopped.checkpoint_step) == ("stopped", stopped.step)
    assert not (driver.runs / "diverges").exists()

    # Killed, it can tell nobody; the run of its hands must not train on alone.
    second = driver.start()
    wait_for("it goes on", lambda: slow_is_at(stopped.step + 2))
    second.kill()
    second.communicate(timeout=60)
    wait_for("the run stops with the study", lambda: read_run(slow).effective_state == "stopped", 60)
    killed = read_run(slow)
    assert stopped.step < killed.step < 400

    status, out, said = driver.run()
    assert status == 1, said  # since one diverges
    assert said.count("[1/3] quick seed 0:") == 1, "completed before"
    assert "[2/3] slow seed 7: completed, test error" in said
    assert "[3/3] diverges seed 0: failed, " in said
    assert read_run(driver.path("diverges")).effective_state == "failed"
    assert train_steps(slow) == list(range(1, 401))
    assert [RunDir(path).status().attempt for path in (quick, slow)] == [1, 3]  # type: ignore[union-attr]
    assert "report:" in out
    report = driver.runs / "report" / "report.md"
    assert "slow" in report.read_text() and "diverges" in report.read_text()
    # Of a part of the study the report is on all that is there.
    status, out, said = driver.run("--only", "quick")
    assert status == 0, said
    assert "slow" in report.read_text() and "diverges" in report.read_text()

    # What is kept for good. The runs have pictures and weights; their copies must not.
    assert {"mistakes.png", "augmented.png", "model.safetensors", "checkpoints"} <= {p.name for p in quick.iterdir()}
    status, out, said = driver.run("--keep", str(tmp_path / "kept"), "--only", "quick,slow")
    assert status == 0, said
    kept = {path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    of_slow = {path.name for path in kept if path.parts[0] == "slow"}
    assert of_slow == {
        "recipe.yaml", "env.json", "status.json", "metrics.jsonl", "summary.json", "model.json", "predictions.npz",
    }  # fmt: skip
    assert not [path for path in kept if path.suffix == ".safetensors"]
    assert {path.parts[0] for path in kept if path.suffix == ".png"} <= {"report"}
    assert "slow" in (tmp_path / "kept" / "report" / "report.md").read_text()
    assert "data:image/png" not in (tmp_path / "kept" / "report" / "report.html").read_text()
    # A start on another machine goes on from what is kept.
    shutil.rmtree(driver.runs)
    status, out, said = driver.run("--keep", str(tmp_path / "kept"), "--only", "quick,slow")
    assert (status, list(driver.runs.glob("*/*"))) == (0, [])
    assert "[2/2] slow seed 7: completed, test error" in said
