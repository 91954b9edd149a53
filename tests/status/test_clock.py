"""A run on another machine, read by a clock that is not the file server's."""

from __future__ import annotations

import time
from pathlib import Path

from support.run_dirs import ELSEWHERE, held_elsewhere, run_dir

from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.status.state import read_run


def test_a_clock_that_is_ahead_does_not_lose_a_run(tmp_path: Path) -> None:
    """The file server's, or ours, by two minutes: whose heartbeat goes on is alive."""
    run_dir(tmp_path, "running")
    held_elsewhere(tmp_path, step=47)
    beats = Heartbeat(tmp_path, 0)
    beats._process = ELSEWHERE
    with beats:
        assert read_run(tmp_path, now=time.time() + 120).effective_state == "running"
    silent = run_dir(tmp_path / "silent", "running").path
    held_elsewhere(silent, step=47)
    assert read_run(silent, now=time.time() + 120).effective_state == "lost"
