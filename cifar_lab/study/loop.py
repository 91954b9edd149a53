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

from cifar_lab.cli.printable import shown
from cifar_lab.rundir.directory import RunDir, RunDirError
from cifar_lab.runtime.orphans import PR_SET_PDEATHSIG
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.status.state import RunState, read_run
from cifar_lab.study.members import Member
from cifar_lab.study.sizing import StudyError
from cifar_lab.study.view import Clock, View, duration, running_line

POLL_SECONDS = 0.5
STOP_SECONDS = 90.0
LAST_LINES = 5
EXIT_DONE, EXIT_FAILED, EXIT_STOPPED = 0, 1, 75


@dataclass
class Loop:
    """A study on its way: its runs, where they are, how many processes each has, and who is told."""

    members: Sequence[Member]
    runs: Path
    nproc: int
    flag: StopFlag
    view: View

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.logs = self.runs / "logs"

    def run(self) -> int:
        """Train what is missing; returns 0, or 1 where a run failed, or 75 where one or the study was stopped."""
        ends = set()
        for number, member in enumerate(self.members, start=1):
            if self.flag.reason is None:
                ends.add(self._one(number, member))
        if self.flag.reason is not None:
            self.view.line(f"stopped by {self.flag.reason}: the same command goes on")
            return EXIT_STOPPED
        return next((status for status in (EXIT_FAILED, EXIT_STOPPED) if status in ends), EXIT_DONE)

    def _one(self, number: int, member: Member) -> int:
        """One run to its end, whoever trains it; returns its exit status as `run` counts."""
        place = f"[{number:{len(str(len(self.members)))}d}/{len(self.members)}]"
        state = read_run(member.path)
        if state.effective_state == "completed":
            self._count(member)
            self.view.line(f"{place} {member.label}: {_result(state)}, completed before")
            return EXIT_DONE
        begun, whole = time.monotonic(), state.effective_state == "new"
        if state.active:
            self.view.line(f"{place} {member.label}: another process trains it; waiting for that")
            state = self._follow(place, number, begun, lambda: not read_run(member.path).active)
        if state.effective_state != "completed" and self.flag.reason is None:
            self._train(place, number, member, begun)
            state = read_run(member.path)
        if state.effective_state == "completed":
            self._count(member, time.monotonic() - begun if whole else None)
            self.view.line(f"{place} {member.label}: {_result(state)}, {duration(time.monotonic() - begun)}")
            return EXIT_DONE
        if state.effective_state == "stopped":
            self.view.line(f"{place} {member.label}: stopped at step {state.step} ({state.reason}), kept")
            return EXIT_STOPPED
        if self.flag.reason is None:
            self.view.line(f"{place} {member.label}: {self._why(member, state)}")
        return EXIT_FAILED

    def _train(self, place: str, number: int, member: Member, begun: float) -> None:
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
                self._follow(place, number, begun, lambda: process.poll() is not None)
                if process.poll() is None:  # asked to stop: it saves at the next step
                    process.send_signal(signal.SIGTERM)
                    self.view.line(f"{place} {member.label}: saves and stops ...")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(STOP_SECONDS)
            finally:
                if process.poll() is None:
                    process.kill()

    def _follow(self, place: str, number: int, begun: float, ended: Callable[[], bool]) -> RunState:
        """Show the run until it ended, or the study is asked to stop."""
        member, waiting = self.members[number - 1], self._missing(number)
        while not ended() and self.flag.reason is None:
            state = read_run(member.path)
            left = self.clock.left(member, state, time.monotonic() - begun, waiting)
            self.view.now(running_line(place, member, state, left))
            time.sleep(POLL_SECONDS)
        return read_run(member.path)

    def _missing(self, number: int) -> list[Member]:
        return [other for other in self.members[number:] if read_run(other.path).effective_state != "completed"]

    def _count(self, member: Member, seconds: float | None = None) -> None:
        """Note how long it took; of one that began in an earlier start, what its summary says."""
        if seconds is None:
            try:
                summary = RunDir(member.path).summary() or {}
            except RunDirError:
                return
            seconds = summary.get("wall_seconds")
        if isinstance(seconds, int | float):
            self.clock.note(member, float(seconds))

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
            self.logs.mkdir(parents=True, exist_ok=True)
            return self._log(member).open("ab")
        except OSError as error:
            raise StudyError(
                f"cannot write {shown(self._log(member))}: {error.strerror}; choose another place with --runs DIR"
            ) from error

    def _log(self, member: Member) -> Path:
        return self.logs / f"{member.name}-{member.path.name}.log"


def _result(state: RunState) -> str:
    return state.message or "no test result"


def _stop_with_parent() -> Callable[[], None] | None:
    """For a child: when the study dies, even by SIGKILL, the kernel asks its run to save and stop. Linux only."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
