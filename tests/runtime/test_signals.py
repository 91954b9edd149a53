"""Workers do not outlive a killed launcher."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.workers import gone_within, hanging_pair, runs

from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import read_beats


@pytest.mark.launch
def test_workers_of_a_killed_launcher_save_themselves_and_leave(tmp_path):
    with hanging_pair(tmp_path, 60.0, 0.0) as (launcher, pids):
        launcher.kill()
        gone_within(60, pids)
        ended = [(beat.rank, beat.ended) for beat in read_beats(tmp_path)]
        assert ended == [(0, True), (1, True)], "they did not stop in order"
        assert RunDir(tmp_path).status().state == "running"


ORPHAN = """
import os, pathlib, signal, subprocess, sys, time
from cifar_lab.runtime import signals
if sys.argv[1] == "launcher":
    child = subprocess.Popen([sys.executable, *sys.argv[2:]], env={**os.environ, "TORCHELASTIC_RUN_ID": "x"})
    time.sleep(60)
told = pathlib.Path(__file__).with_name("told")
signal.signal(signal.SIGTERM, lambda *_: told.touch())  # a worker that hangs
signals.POLL_SECONDS = 0.1
if sys.argv[1] == "late":  # its launcher is killed while it still imports torch
    launcher = os.getppid()
    print(os.getpid(), flush=True)
    while os.getppid() == launcher:
        time.sleep(0.05)
signals.die_with_parent(grace=1.0)
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.launch
@pytest.mark.parametrize("when", ["worker", "late"])
def test_hanging_worker_of_a_killed_launcher_is_killed(tmp_path, when):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    command = [sys.executable, str(script), "launcher", str(script), when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        pid = int(launcher.stdout.readline())
        assert runs(pid)
        launcher.kill()
        gone_within(30, [pid])
        assert (tmp_path / "told").exists(), "it was not asked before it was killed"
