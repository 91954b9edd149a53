"""Names of files in a form that every terminal can print."""

from __future__ import annotations

import os
from pathlib import Path


def shown(path: str | Path) -> str:
    """The path, with what is not text or would act on the terminal as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
