"""Names of files and durations in a form that every terminal can print and everybody reads."""

from __future__ import annotations

import os
from pathlib import Path


def shown(path: str | Path) -> str:
    """The path, with what is not text or would act on the terminal as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def duration(seconds: float) -> str:
    """Whole seconds as 0:07, 12:34, 1:02:03 or 2d 03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
