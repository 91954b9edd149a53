"""A terminal that is closed: the run saves and stops, and goes on where nohup says so."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import PYTHON, ROOT, TRAIN, environment, write_recipe
from support.small import small

from cifar_lab.rundir.directory import RunDir

TORCHRUN = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *TRAIN[1:]]
NODE_SH = [str(ROOT / "launch" / "node.sh"), "--nproc", "2"]
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "CIFAR_LAB_PYTHON": sys.executable}


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        if process is not None and (process.poll() is not None or time.monotonic() > deadline):
            process.kill()
            raise AssertionError(process.communicate()[1])
        assert time.monotonic() < deadline
        time.sleep(0.1)


def step_of(run: RunDir) -> int:
    status = run.status()
    return status.step if status else 0


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A long run in `run` of the test's folder."""
    recipe = small(train__epochs=None, train__steps=100_000, train__global_batch=16, checkpoint__every_steps=50_000)
    return [write_recipe(tmp_path, recipe), "--run-dir", str(tmp_path / "run")]


def saved_and_stopped(run: RunDir, reason: str) -> None:
    status = run.status()
    assert status is not None
    assert (status.state, status.reason) == ("stopped", reason)
    assert [path.name for path in run.checkpoints.iterdir()] == [f"step_{status.step:08d}"]


def test_a_terminal_that_is_closed(tmp_path: Path, words: list[str]) -> None:
    run = RunDir(tmp_path / "run")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe(PYTHON, [*TRAIN, *words], environment())
    until(lambda: step_of(run) > 2)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    saved_and_stopped(run, "SIGHUP")


@pytest.mark.launch
@pytest.mark.parametrize(
    ("command", "goes_on"), [(TRAIN, True), (NODE_SH, True), (TORCHRUN, False)], ids=["alone", "node.sh", "torchrun"]
)
def test_nohup(tmp_path: Path, words: list[str], command: list[str], goes_on: bool) -> None:
    """torchrun itself does not ask nohup, and ends its processes: they save first."""
    run = RunDir(tmp_path / "run")
    with subprocess.Popen(
        ["nohup", *command, *words], cwd=ROOT, env=environment(**ENVIRONMENT), stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: step_of(run) > 2, process)
        process.send_signal(signal.SIGHUP)
        before = step_of(run)
        if goes_on:
            until(lambda: step_of(run) > before + 5, process)
            (run.path / "STOP").touch()
        said = process.communicate(timeout=240)[1]
    assert process.returncode != 0, said
    saved_and_stopped(run, "STOP" if goes_on else "SIGHUP")
