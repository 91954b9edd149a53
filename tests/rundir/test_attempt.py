"""One attempt at a time runs a run directory."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from cifar_lab.errors import UserError
from cifar_lab.files.process import ProcessId
from cifar_lab.rundir import attempt as attempts
from cifar_lab.rundir.attempt import claim, read_attempt
from cifar_lab.rundir.heartbeat import Heartbeat, read_beats

CLAIM = (
    "import sys, pathlib; from cifar_lab.rundir.attempt import claim; print(claim(pathlib.Path(sys.argv[1])).number)"
)
ELSEWHERE = {"host": "node7", "machine": "another boot", "pid": 1234, "start": 5}


def claimant(folder, then=""):
    """Another process that claims `folder`, then does `then`."""
    command = [sys.executable, "-c", f"{CLAIM}; sys.stdout.flush(); {then}", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def held_elsewhere(folder, monkeypatch, silent_seconds):
    """A directory whose holder is on another machine, with one heartbeat."""
    claim(folder)
    fields = json.loads((folder / "attempt.json").read_text())
    (folder / "attempt.json").write_text(json.dumps(fields | {"process": ELSEWHERE}))
    heartbeat = Heartbeat(folder, 0, 1, interval=0.1)
    heartbeat._process = ProcessId(**ELSEWHERE)
    heartbeat._write()
    monkeypatch.setattr(attempts, "SILENT_SECONDS", silent_seconds)
    return heartbeat


@pytest.fixture
def sleeps(monkeypatch):
    """Seconds of each time that a claim waited."""
    waited, sleep = [], time.sleep
    monkeypatch.setattr(attempts.time, "sleep", lambda seconds: (waited.append(seconds), sleep(seconds)))
    return waited


def test_first_attempt_says_who_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    attempt = claim(tmp_path / "new" / "run")
    said = json.loads((tmp_path / "new" / "run" / "attempt.json").read_text())
    assert (attempt.number, attempt.process.pid, attempt.job_id) == (1, os.getpid(), "77")
    assert (said["number"], said["process"]["pid"], said["job_id"], said["ended"]) == (1, os.getpid(), "77", None)
    assert attempt.still_ours()
    attempt.check()


def test_living_holder_is_named_and_refuses(tmp_path, sleeps):
    claim(tmp_path)
    with pytest.raises(UserError, match=rf"attempt 1 \(process {os.getpid()} on .*STOP.*--fresh.*kill -9"):
        claim(tmp_path)
    assert not sleeps
    assert read_attempt(tmp_path).number == 1


@pytest.mark.parametrize("reaped", [True, False])
def test_killed_holder_is_taken_over(tmp_path, reaped):
    with claimant(tmp_path, "import time; time.sleep(60)") as holder:
        assert holder.stdout.readline() == "1\n"
        first = attempts.Attempt(tmp_path, 1, read_attempt(tmp_path).process, None, 0.0)
        assert first.still_ours()
        with pytest.raises(UserError):
            claim(tmp_path)
        holder.kill()
        if reaped:
            holder.wait()
        else:
            time.sleep(0.2)  # a zombie keeps its pid
        second = claim(tmp_path)
    assert (second.number, second.still_ours(), first.still_ours()) == (2, True, False)
    with pytest.raises(UserError, match=r"taken over by attempt 2"):
        first.check()
    third = dataclasses.replace(second, number=3)
    second.release()
    assert claim(tmp_path).number == 3
    assert third.still_ours()
    assert not first.still_ours()
    assert not second.still_ours()


def test_recycled_pid_is_another_process(tmp_path):
    claim(tmp_path)
    fields = json.loads((tmp_path / "attempt.json").read_text())
    fields["process"]["start"] -= 1
    (tmp_path / "attempt.json").write_text(json.dumps(fields))
    assert claim(tmp_path).number == 2


def test_released_attempt_is_free_at_once_wherever_it_was(tmp_path, sleeps):
    first = claim(tmp_path)
    first.release()
    fields = json.loads((tmp_path / "attempt.json").read_text())
    (tmp_path / "attempt.json").write_text(json.dumps(fields | {"process": ELSEWHERE}))
    assert claim(tmp_path).number == 2
    assert not sleeps
    first.release()  # no longer ours to say
    assert read_attempt(tmp_path).ended is None


def test_beating_holder_elsewhere_refuses_whatever_the_clocks_say(tmp_path, monkeypatch):
    heartbeat = held_elsewhere(tmp_path, monkeypatch, 60)
    heartbeat._thread.start()
    with pytest.raises(UserError, match=r"process 1234 on node7"):
        claim(tmp_path)
    heartbeat.close()


def test_silent_holder_elsewhere_is_taken_over_after_a_while(tmp_path, monkeypatch, sleeps, caplog):
    held_elsewhere(tmp_path, monkeypatch, 3.0)
    assert claim(tmp_path).number == 2
    assert caplog.messages == [f"waiting to see whether attempt 1 of {tmp_path} still runs"]
    assert sleeps
    assert not read_beats(tmp_path)


def test_silence_of_long_ago_needs_no_wait(tmp_path, monkeypatch, sleeps):
    held_elsewhere(tmp_path, monkeypatch, 60.0)
    for path in [*tmp_path.iterdir(), *(tmp_path / "heartbeat").iterdir()]:
        os.utime(path, (0, time.time() - 100))
    assert claim(tmp_path).number == 2
    assert not sleeps


def test_fresh_heartbeats_count_however_old_the_marker(tmp_path, monkeypatch):
    held_elsewhere(tmp_path, monkeypatch, 60.0)
    for path in (tmp_path / ".attempt-1", tmp_path / "attempt.json"):
        os.utime(path, (0, time.time() - 100))
    assert attempts._silence(tmp_path, 1, read_beats(tmp_path)) < 60


def test_overtaken_claimant_leaves_no_marker(tmp_path):
    claim(tmp_path).release()
    second = claim(tmp_path)
    assert attempts._try_next(tmp_path, 1) is None  # it had read the folder before the first claim
    assert not (tmp_path / ".attempt-1").exists()
    assert (read_attempt(tmp_path).number, second.still_ours()) == (2, True)


def test_waits_for_the_peers_of_a_dead_rank_0(tmp_path, sleeps):
    holder = claimant(tmp_path)
    holder.communicate()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"]) as peer:
        heartbeat = Heartbeat(tmp_path, 1, 1)
        heartbeat._process = dataclasses.replace(ProcessId.here(), pid=peer.pid, start=None)
        heartbeat._write()
        threading.Thread(target=peer.wait).start()
        assert claim(tmp_path).number == 2
        assert sleeps


def test_claimant_that_died_before_its_name_was_written(tmp_path, monkeypatch):
    (tmp_path / ".attempt-1").touch()
    monkeypatch.setattr(attempts, "SILENT_SECONDS", 0.5)
    assert claim(tmp_path).number == 2


def test_slow_starter_looks_again_at_who_holds(tmp_path, sleeps):
    claim(tmp_path).release()
    claim(tmp_path)
    attempts._await_end(tmp_path, 1)  # what it had read before the second claim
    assert not sleeps


RACE = """
import sys, time
from pathlib import Path
from cifar_lab.errors import UserError
from cifar_lab.rundir.attempt import claim
rounds, folder = int(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
begin = float(sys.stdin.readline())
for number in range(rounds):
    time.sleep(max(0.0, begin + 0.1 * number - time.time()))
    try:
        print(number, claim(folder / str(number)).number)
    except UserError:
        pass
print("done", flush=True)
sys.stdin.read()  # the winners live on until all have tried
"""


@pytest.mark.launch
def test_of_eight_simultaneous_claims_one_wins(tmp_path):
    rounds = 12
    for number in range(0, rounds, 2):  # every other directory has a dead holder
        with claimant(tmp_path / str(number)) as holder:
            holder.communicate()
    command = [sys.executable, "-c", RACE, str(rounds), str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 8
    begin = time.time() + 0.5
    for racer in racers:
        racer.stdin.write(f"{begin}\n")
        racer.stdin.flush()
    outputs = [list(iter(racer.stdout.readline, "done\n")) for racer in racers]
    assert [racer.communicate(timeout=10)[1] for racer in racers] == [""] * 8
    wins = sorted(tuple(map(int, line.split())) for lines in outputs for line in lines)
    assert wins == [(number, 2 - number % 2) for number in range(rounds)]
    assert sum(map(bool, outputs)) > 1, "they did not race"


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write the run directory .*Not a directory.*--runs DIR"):
        claim(tmp_path / "file" / "run")


def test_full_disk_leaves_nothing_claimed(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "  # the marker is empty, the rest not
    done = subprocess.run([sys.executable, "-c", limit + CLAIM, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("cifar_lab.errors.UsageError: cannot write the run directory")
    assert claim(tmp_path).number == 1


def test_stopped_holder_still_holds(tmp_path):
    with claimant(tmp_path, "import time; time.sleep(60)") as holder:
        assert holder.stdout.readline() == "1\n"
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match=rf"kill -9 {holder.pid}"):
            claim(tmp_path)
        holder.kill()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"number": "1"}', '{"number": 1, "process": {}}'])
def test_damaged_attempt_file_is_waited_out(tmp_path, monkeypatch, text):
    claim(tmp_path)
    (tmp_path / "attempt.json").write_text(text)
    monkeypatch.setattr(attempts, "SILENT_SECONDS", 0.3)
    assert claim(tmp_path).number == 2
