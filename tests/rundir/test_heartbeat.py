"""Heartbeat files, and what is left of them."""

from __future__ import annotations

import os
import time

from cifar_lab.files.process import ProcessId
from cifar_lab.rundir.heartbeat import Heartbeat, read_beat, read_beats


def test_heartbeat_file(tmp_path):
    with Heartbeat(tmp_path, 3, 2, interval=0.05) as heartbeat:
        first = read_beat(tmp_path, 3)
        assert (first.attempt, first.process, first.phase, first.ended) == (2, ProcessId.here(), "start", False)
        heartbeat.phase("compile")
        with heartbeat.during("save"):
            pass
        assert heartbeat.now().phase == "compile"
        heartbeat.step(4)
        with heartbeat.during("validation"):
            heartbeat.advance()
            time.sleep(0.2)
            inside = read_beat(tmp_path, 3)
        time.sleep(0.2)
        after = read_beat(tmp_path, 3)
    assert (inside.phase, inside.step, inside.progress) == ("validation", 4, 6)
    assert (after.phase, after.progress) == ("train", 7)
    assert first.count < inside.count < after.count
    time.sleep(0.2)
    assert read_beat(tmp_path, 3).ended, "its last word"
    assert os.listdir(tmp_path / "heartbeat") == ["3.json"]


def test_unreadable_heartbeats_are_none(tmp_path):
    Heartbeat(tmp_path, 0)._write()
    whole = (tmp_path / "heartbeat" / "0.json").read_text()
    texts = ["", whole[:40], "[1]", whole, whole.replace('"start"', "1"), "\xff\0", "1e999"]
    texts.append(whole.replace('"rank":0', '"rank":8').replace('"step":0', '"step":"0"'))
    for rank, text in enumerate(texts):
        (tmp_path / "heartbeat" / f"{rank + 1}.json").write_text(text, encoding="latin-1")
    (tmp_path / "heartbeat" / "9.json").mkdir()
    (tmp_path / "heartbeat" / "notes.json").touch()
    assert [beat.rank for beat in read_beats(tmp_path)] == [0]
    assert read_beats(tmp_path / "nowhere") == []


def test_unwritable_heartbeat_lets_the_run_go_on_and_says_so_once(tmp_path, caplog):
    (tmp_path / "heartbeat").touch()
    with Heartbeat(tmp_path, 0, interval=0.02) as heartbeat:
        time.sleep(0.3)
        assert not heartbeat.healthy
        (tmp_path / "heartbeat").unlink()
        time.sleep(0.1)
        assert heartbeat.healthy
    assert len(caplog.records) == 1
    assert "the watchdog waits" in caplog.text
