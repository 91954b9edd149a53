"""Works off the runs of a study, one after the other; what is completed is skipped, what was stopped goes on."""

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.runtime.signals import StopFlag
from cifar_lab.status.state import read_run
from cifar_lab.study.collect import keep, state_of
from cifar_lab.study.members import Member

POLL_SECONDS = 0.5
STOP_SECONDS = 90.0
PR_SET_PDEATHSIG = 1
EXIT_DONE, EXIT_FAILED, EXIT_STOPPED = 0, 1, 75


def train_all(members: Sequence[Member], runs: Path, nproc: int, flag: StopFlag, kept: Path | None = None) -> int:
    """Train what is missing; returns 0, or 1 where a run failed, or 75 where one or the study was stopped.

    With `kept` each completed run is copied below it at once, and what is there already is not trained again.
    """
    ends = set()
    for number, member in enumerate(members, start=1):
        if flag.reason is not None:
            break
        place = f"[{number}/{len(members)}] {member.label}"
        state = state_of(member, kept)
        if state.effective_state != "completed":
            print(f"{place}: {member.path}", file=sys.stderr, flush=True)
            _train(member.command(runs, nproc), flag)
            state = read_run(member.path)
        if kept is not None and state.effective_state == "completed" and state.path == member.path:
            keep(member, kept)
        ends.add(state.effective_state)
        print(f"{place}: {state.effective_state}, {state.message}", file=sys.stderr, flush=True)
    if flag.reason is not None:
        print(f"stopped by {flag.reason}: the same command continues", file=sys.stderr)
        return EXIT_STOPPED
    if ends <= {"completed"}:
        return EXIT_DONE
    return EXIT_STOPPED if ends <= {"completed", "stopped"} else EXIT_FAILED


def _train(command: Sequence[str], flag: StopFlag) -> None:
    """Until the run ended, or saved and stopped because the study is asked to stop."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_stop_with_parent) as process:
        try:
            while process.poll() is None and flag.reason is None:
                time.sleep(POLL_SECONDS)
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
        finally:
            process.kill()


def _stop_with_parent() -> None:
    """In a child: when the study dies, even by SIGKILL, the kernel asks its run to save and stop. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
