"""Ctrl-C: remembered, so that a command ends as interrupted in whatever way what it was doing failed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 128 + signal.SIGINT
IMPATIENT_SECONDS = 1.0


class Interrupt:
    """Whether Ctrl-C came. It raises KeyboardInterrupt; once more only after a second, so that tidying up is done."""

    def __init__(self) -> None:
        self.came = False
        self._last = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.came or now - self._last > IMPATIENT_SECONDS:
            self.came, self._last = True, now
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """From now on, for the rest of the process; what its end does, such as joining threads, would print errors."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Within it Ctrl-C is remembered, unless somebody ignores or handles it already (a shell does for `&`)."""
    interrupt = Interrupt()
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if mine:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        if mine and signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
