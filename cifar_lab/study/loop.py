"""Works off the runs of a study, one after the other; what is completed is skipped, what was stopped goes on."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cifar_lab.cli.printable import duration, shown
from cifar_lab.runtime.orphans import PR_SET_PDEATHSIG
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.status.state import RunState, read_run
from cifar_lab.study.members import Member
from cifar_lab.study.sizing import StudyError

POLL_SECONDS = 0.5
STOP_SECONDS = 90.0
LAST_LINES = 5
EXIT_DONE, EXIT_FAILED, EXIT_STOPPED = 0, 1, 75


@dataclass
class Loop:
    """A study on its way: its runs, where they are, and how many processes each has."""

    members: Sequence[Member]
    runs: Path
    nproc: int
    flag: StopFlag

    def run(self) -> int:
        """Train what is missing; returns 0, or 1 where a run failed, or 75 where one or the study was stopped."""
        ends = set()
        for number, member in enumerate(self.members, start=1):
            if self.flag.reason is None:
                ends.add(self._one(number, member))
        if self.flag.reason is not None:
            _say(f"stopped by {self.flag.reason}: the same command goes on")
            return EXIT_STOPPED
        return next((status for status in (EXIT_FAILED, EXIT_STOPPED) if status in ends), EXIT_DONE)

    def _one(self, number: int, member: Member) -> int:
        """One run to its end, whoever trains it; returns its exit status as `run` counts."""
        place = f"[{number:{len(str(len(self.members)))}d}/{len(self.members)}]"
        state = read_run(member.path)
        if state.effective_state == "completed":
            _say(f"{place} {member.label}: {_result(state)}, completed before")
            return EXIT_DONE
        begun = time.monotonic()
        if state.active:
            _say(f"{place} {member.label}: another process trains it; waiting for that")
            self._wait(lambda: not read_run(member.path).active)
            state = read_run(member.path)
        if state.effective_state != "completed" and self.flag.reason is None:
            begins = f"goes on after step {state.step}" if state.step else "starts"
            _say(f"{place} {member.label}: {begins}; what it prints is in {shown(self._log(member))}")
            self._train(place, member)
            state = read_run(member.path)
        if state.effective_state == "completed":
            _say(f"{place} {member.label}: {_result(state)}, {duration(time.monotonic() - begun)}")
            return EXIT_DONE
        if state.effective_state == "stopped":
            _say(f"{place} {member.label}: stopped at step {state.step} ({state.reason}), kept")
            return EXIT_STOPPED
        if self.flag.reason is None:
            _say(f"{place} {member.label}: {self._why(member, state)}")
        return EXIT_FAILED

    def _train(self, place: str, member: Member) -> None:
        with (
            self._opened_log(member) as log,
            subprocess.Popen(
                member.command(self.runs, self.nproc),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_stop_with_parent(),
            ) as process,
        ):
            try:
                self._wait(lambda: process.poll() is not None)
                if process.poll() is None:  # asked to stop: it saves at the next step
                    process.send_signal(signal.SIGTERM)
                    _say(f"{place} {member.label}: saves and stops ...")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(STOP_SECONDS)
            finally:
                if process.poll() is None:
                    process.kill()

    def _wait(self, ended: Callable[[], bool]) -> None:
        """Until the run ended, or the study is asked to stop."""
        while not ended() and self.flag.reason is None:
            time.sleep(POLL_SECONDS)

    def _why(self, member: Member, state: RunState) -> str:
        """Why a run has no result, and the end of its log."""
        log = self._log(member)
        try:
            last = log.read_bytes()[-4096:].decode("utf-8", "replace").splitlines()[-LAST_LINES:]
        except OSError:
            last = []
        why = f"{state.effective_state}{f', {state.reason}' if state.reason else ''}; see {shown(log)}"
        return "\n".join([why, *(f"    {shown(line)}" for line in last)])

    def _opened_log(self, member: Member) -> BinaryIO:
        try:
            self._log(member).parent.mkdir(parents=True, exist_ok=True)
            return self._log(member).open("ab")
        except OSError as error:
            raise StudyError(
                f"cannot write {shown(self._log(member))}: {error.strerror}; choose another place with --runs DIR"
            ) from error

    def _log(self, member: Member) -> Path:
        return self.runs / "logs" / f"{member.name}-{member.path.name}.log"


def _say(text: str) -> None:
    # A reader that went away must not end the study.
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _result(state: RunState) -> str:
    return state.message or "no test result"


def _stop_with_parent() -> Callable[[], None] | None:
    """For a child: when the study dies, even by SIGKILL, the kernel asks its run to save and stop. Linux only."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
