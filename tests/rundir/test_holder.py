"""Who counts as the holder of a run directory: markers, names and heartbeats that do not agree."""

from __future__ import annotations

import dataclasses
import json
import os
import time

import pytest

from cifar_lab.errors import UserError
from cifar_lab.files.process import ProcessId
from cifar_lab.rundir import attempt as attempts
from cifar_lab.rundir.attempt import claim, read_attempt
from cifar_lab.rundir.heartbeat import Heartbeat

ELSEWHERE = {"host": "node7", "machine": "another boot", "pid": 1234, "start": 5}


@pytest.fixture
def sleeps(monkeypatch):
    """Seconds of each time that a claim waited; a holder elsewhere is gone after half a second."""
    waited, sleep = [], time.sleep
    monkeypatch.setattr(attempts.time, "sleep", lambda seconds: (waited.append(seconds), sleep(seconds)))
    monkeypatch.setattr(attempts, "SILENT_SECONDS", 0.5)
    return waited


def moved_elsewhere(folder):
    """Let attempt.json say that its holder is on another machine."""
    fields = json.loads((folder / "attempt.json").read_text())
    (folder / "attempt.json").write_text(json.dumps(fields | {"process": ELSEWHERE}))


def test_a_directory_is_lost_as_soon_as_the_next_marker_is_there(tmp_path):
    first = claim(tmp_path)
    (tmp_path / ".attempt-2").touch()  # whose claimant has not come to remove the older ones
    assert not first.still_ours()


def test_heartbeats_of_an_earlier_attempt_hold_nothing(tmp_path, sleeps):
    claim(tmp_path).release()
    claim(tmp_path).release()
    Heartbeat(tmp_path, 0, 1)._write()  # a process that has not seen yet that it was overtaken
    assert claim(tmp_path).number == 3
    assert not sleeps


def test_a_process_that_left_the_run_and_lives_on_holds_nothing(tmp_path, sleeps):
    first = claim(tmp_path)
    with Heartbeat(tmp_path, 0, 1):
        pass
    first.release()
    assert claim(tmp_path).number == 2
    assert not sleeps


def test_between_a_marker_and_its_name_the_name_before_means_nothing(tmp_path, sleeps):
    claim(tmp_path).release()
    (tmp_path / ".attempt-2").touch()
    assert read_attempt(tmp_path).ended
    assert claim(tmp_path).number == 3
    assert sleeps, "its claimant may be about to write its name"


def test_a_fresh_marker_alone_is_waited_for(tmp_path, sleeps):
    (tmp_path / ".attempt-1").touch()
    assert claim(tmp_path).number == 2
    assert sleeps


def test_a_fresh_name_counts_however_old_the_marker(tmp_path, sleeps):
    claim(tmp_path)
    moved_elsewhere(tmp_path)
    os.utime(tmp_path / ".attempt-1", (0, time.time() - 100))
    assert claim(tmp_path).number == 2
    assert sleeps


def test_a_beating_holder_elsewhere_is_noticed_by_its_beats(tmp_path, sleeps, monkeypatch):
    monkeypatch.setattr(attempts, "SILENT_SECONDS", 40.0)
    claim(tmp_path)
    moved_elsewhere(tmp_path)
    heartbeat = Heartbeat(tmp_path, 0, 1, interval=0.1)
    heartbeat._process = ProcessId(**ELSEWHERE)
    with heartbeat, pytest.raises(attempts.UserError, match="process 1234 on node7"):
        claim(tmp_path)
    assert len(sleeps) < 100, "it waited for silence"


def test_of_several_processes_that_live_rank_0_is_to_be_ended(tmp_path):
    claim(tmp_path)
    heartbeat = Heartbeat(tmp_path, 1, 1)
    heartbeat._process = dataclasses.replace(ProcessId.here(), pid=1, start=None)
    heartbeat._write()
    with pytest.raises(UserError, match=f"kill -9 {os.getpid()}` on"):
        claim(tmp_path)
