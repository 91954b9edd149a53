"""One progress view of a study: a line for each finished run, and one of the running run that is redrawn."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from cifar_lab.status.state import RunState
from cifar_lab.study.members import Member

PLAIN_SECONDS = 30.0


class View:
    """Writes to standard error: in a terminal redrawn, in a pipe or log a plain line now and then."""

    def __init__(self, stream: TextIO | None = None, plain_seconds: float = PLAIN_SECONDS) -> None:
        self._stream = stream or sys.stderr
        self._redraws = _is_terminal(self._stream)
        self._every = 0.0 if self._redraws else plain_seconds
        self._due = time.monotonic() + self._every
        self._drawn = False

    def line(self, text: str) -> None:
        """A line that stays."""
        self._write(("\r\x1b[K" if self._drawn else "") + text + "\n")
        self._drawn = False

    def now(self, text: str) -> None:
        """What happens now; in a log only when enough time has passed."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every
        if not self._redraws:
            self._write(text + "\n")
            return
        self._write("\r" + text[: _columns(self._stream) - 1] + "\x1b[K")
        self._drawn = True

    def _write(self, text: str) -> None:
        # A reader that went away must not end the study.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def running_line(place: str, member: Member, state: RunState, left_for_all: float | None) -> str:
    """The run's line: its place among all, progress, numbers, time left for it and for all."""
    parts = [f"{place} {member.label}"]
    if state.total_steps:
        parts.append(f"{100 * state.step / state.total_steps:3.0f}% step {state.step}/{state.total_steps}")
    else:
        parts.append("starts")
    if state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    parts.append("all " + ("?" if left_for_all is None else duration(left_for_all)) + " left")
    if state.val_error is not None:
        parts.append(f"val error {state.val_error:.2%}")
    if state.images_per_second is not None:
        parts.append(f"{state.images_per_second:,.0f} images/s")
    return "  ".join(parts)


@dataclass
class Clock:
    """How long runs take, from the study's file and from those that ended; all in seconds."""

    took: dict[str, float] = field(default_factory=dict)  # the latest of each entry
    _expected: float = 0.0
    _needed: float = 0.0

    def note(self, member: Member, seconds: float) -> None:
        """A run ended after so long, from its start to its end."""
        self.took[member.name] = seconds
        if member.minutes:
            self._expected += 60 * member.minutes
            self._needed += seconds

    def expected(self, member: Member) -> float | None:
        """As long as the last of its entry, else what the file says at this machine's pace; None: unknown."""
        if member.name in self.took:
            return self.took[member.name]
        pace = self._needed / self._expected if self._expected else 1.0
        return 60 * member.minutes * pace if member.minutes else None

    def left(self, member: Member, state: RunState, spent: float, waiting: Sequence[Member]) -> float | None:
        """Until the last run ends: the rest of this one, which has run for `spent`, and the waiting ones."""
        whole = self.expected(member)
        rest = max(0.0, whole - spent) if whole is not None else None
        if state.seconds_left is not None:
            rest = state.seconds_left
        parts = [rest, *(self.expected(other) for other in waiting)]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def duration(seconds: float) -> str:
    """Whole seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    except ValueError:  # a closed file
        return False
