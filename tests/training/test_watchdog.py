"""What a hang leaves: who it was, the stacks of those who answer, status 75; and what is no hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.workers import gone_within, hanging_pair

from cifar_lab.files.process import ProcessId
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import read_beat

HERE = ProcessId.here()

ALONE = """
import sys, threading, time
from pathlib import Path
from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.rundir.directory import RunDir
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.training.watchdog import Presence, Watchdog
def hanging_function():
    threading.Event().wait()
folder = Path(sys.argv[1])
attempt, run_dir = claim(folder), RunDir(folder)
run_dir.write_status("running", 1, 9)
heartbeat = Heartbeat(folder, 0, 1)
with heartbeat, Watchdog(Presence(run_dir, attempt, heartbeat, StopFlag()), 1, 1.5):
    heartbeat.phase("train")
    for step in range(3):  # slow but sure
        time.sleep(0.8)
        heartbeat.step(step)
    hanging_function()
"""


@pytest.mark.launch
def test_hanging_single_process_ends_with_its_stacks(tmp_path):
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 75
    assert "runs but made no progress for " in done.stderr
    assert "in phase train at step 2; stacks: " in done.stderr
    stacks = (tmp_path / "hang-1-rank0.txt").read_text()
    assert "in hanging_function" in stacks
    status = RunDir(tmp_path).status()
    assert (status.state, status.step, status.total_steps, status.attempt) == ("interrupted", 2, 9, 1)


STEPPING = """
import sys, time
from pathlib import Path
from cifar_lab.rundir import attempt as attempts
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.rundir.directory import RunDir
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.training.watchdog import Presence, Watchdog
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
holder = attempts.read_attempt(folder)
attempt = attempts.Attempt(folder, holder.number, holder.process, None, 0.0)
heartbeat = Heartbeat(folder, rank, holder.number, interval=0.1)
with heartbeat, Watchdog(Presence(RunDir(folder), attempt, heartbeat, StopFlag()), 2, 2.0, interval=0.1):
    heartbeat.phase("train")
    print("training", flush=True)
    for step in range(30):
        heartbeat.step(step)
        time.sleep(0.1)
"""


@pytest.mark.launch
def test_suspended_machine_is_no_hang(tmp_path):
    claim(tmp_path)
    workers = [
        subprocess.Popen([sys.executable, "-c", STEPPING, str(tmp_path), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "training\n"
    for pause, rank, number in ((0.5, 1, "SIGSTOP"), (0.3, 0, "SIGSTOP"), (3.0, 0, "SIGCONT"), (0.3, 1, "SIGCONT")):
        time.sleep(pause)
        workers[rank].send_signal(signal.Signals[number])
    for worker in workers:
        worker.communicate(timeout=20)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert not list(tmp_path.glob("hang-*"))


@pytest.mark.launch
def test_stopped_process_is_named_by_the_other_in_time(tmp_path):
    hang_timeout = 3.0
    with hanging_pair(tmp_path, hang_timeout, 1.2 * hang_timeout) as (launcher, pids):
        step = read_beat(tmp_path, 0).step
        os.kill(pids[1], signal.SIGSTOP)
        line = launcher.stderr.readline()
        while "has sent no heartbeat" not in line:
            assert line, "ended without a word"
            line = launcher.stderr.readline()
        gone_within(30, pids[:1])
        os.kill(pids[1], signal.SIGKILL)
        rest = launcher.communicate(timeout=40)[1]
    assert line.startswith(f"rank 1 (process {pids[1]} on {HERE.host}) has sent no heartbeat for 3 s, in phase train")
    assert "exitcode  : 75" in rest
    status = RunDir(tmp_path).status()
    assert status.state == "interrupted"
    assert status.reason in line
    assert status.step >= step
    assert "in train" in (tmp_path / "hang-1-rank0.txt").read_text()
    assert not (tmp_path / "hang-1-rank1.txt").exists()


HUNG_MAIN = """
import sys, time
from pathlib import Path
from cifar_lab.rundir import attempt as attempts
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.rundir.directory import RunDir
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.training.watchdog import Presence, Watchdog
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
holder = attempts.read_attempt(folder)
attempt = attempts.Attempt(folder, holder.number, holder.process, None, 0.0)
def waits_for_others():
    time.sleep(60)
def hangs():
    time.sleep(60)
timeout = 2.0 if rank == 2 else 1000.0  # so that the others learn of it by the notice alone
heartbeat = Heartbeat(folder, rank, holder.number)
with heartbeat, Watchdog(Presence(RunDir(folder), attempt, heartbeat, StopFlag()), 3, timeout):
    heartbeat.phase("train")
    heartbeat.step(1)
    if rank == 1:
        hangs()
    heartbeat.step(2)
    waits_for_others()
"""


@pytest.mark.launch
def test_all_three_leave_their_stacks_when_one_main_thread_hangs(tmp_path):
    claim(tmp_path)
    (tmp_path / "heartbeat").mkdir()
    (tmp_path / "heartbeat" / "1.json").write_text("{torn")
    workers = [
        subprocess.Popen([sys.executable, "-c", HUNG_MAIN, str(tmp_path), str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    workers[2].wait(timeout=20)  # who decided leaves when the others have written theirs
    stacks = [(tmp_path / f"hang-1-rank{rank}.txt").read_text() for rank in range(3)]
    said = [worker.communicate(timeout=20)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [75, 75, 75]
    assert said[0].startswith(f"rank 1 (process {workers[1].pid} on {HERE.host}) runs but made no progress for 2 s")
    assert "in phase train at step 1; stacks: " in said[0]
    assert said[1:] == ["", ""]
    assert ["in hangs" in text for text in stacks] == [False, True, False]
    assert ["in waits_for_others" in text for text in stacks] == [True, False, True]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"
