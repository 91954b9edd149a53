"""Names that another process made: network file systems show them late."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LATE_SECONDS = 60.0  # NFS clients keep for so long, by default, what they know of a folder


def appears(seen: Callable[[], bool], *folders: Path) -> bool:
    """Whether `seen` comes true in LATE_SECONDS; lists `folders` in between, for which NFS asks its server again."""
    end = time.monotonic() + LATE_SECONDS
    while not seen():
        if time.monotonic() > end:
            return False
        for folder in folders:
            with suppress(OSError):
                os.listdir(folder)
        time.sleep(0.2)
    return True
