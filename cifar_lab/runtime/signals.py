"""Signals that ask a run to stop: they set a flag and nothing else; the loop saves and ends at a step boundary."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopFlag:
    """Which signal asked to stop, if any; a second one changes nothing."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.reason is None:
            self.reason = signal.Signals(number).name


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Within it the stopping signals set the flag; outside the main thread, where none arrive, it stays unset."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    previous = {number: signal.signal(number, flag) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
