"""What is printed: names of files, durations and shares as every terminal shows them, and streams that nobody reads."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def shown(path: str | Path) -> str:
    """The path, with what is not text or would act on the terminal as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def duration(seconds: float | None) -> str:
    """Whole seconds as 0:07, 12:34, 1:02:03 or 2d 03:04."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(value: float | None) -> str:
    """0.1234 as 12.34 %."""
    return "-" if value is None else f"{100 * value:.2f} %"


def error_rate(accuracy: float) -> str:
    """0.8028 as `error 19.72 % (accuracy 80.28 %)`."""
    return f"error {percent(1 - accuracy)} (accuracy {percent(accuracy)})"


def leave(stream: TextIO) -> None:
    """Point a standard stream whose reader is gone at the null device: Python flushes it once more at its exit."""
    with suppress(OSError, ValueError):  # one that has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
