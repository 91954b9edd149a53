"""Worker processes that are stopped, killed and waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_lab.rundir.heartbeat import read_beats

WORKER = Path(__file__).parents[1] / "workers" / "hang.py"


@contextmanager
def hanging_pair(folder, hang_timeout, validation_seconds):
    """Two workers under torchrun that have reached step 20, in `folder`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(WORKER)]
    command += [str(folder), str(hang_timeout), str(validation_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        pids = []
        try:
            assert [launcher.stdout.readline() for _ in range(2)] == ["validated\n", "training\n"]
            pids = [beat.process.pid for beat in read_beats(folder)]
            assert len(pids) == 2
            yield launcher, pids
        finally:
            for pid in [*pids, launcher.pid]:
                if launcher.poll() is None or pid != launcher.pid:
                    kill(pid)


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def gone_within(seconds, pids):
    """Wait until no process of `pids` runs."""
    begun = time.monotonic()
    while any(runs(pid) for pid in pids):
        assert time.monotonic() - begun < seconds, "still there"
        time.sleep(0.05)


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
