"""Which process this is, told apart from one that later got the same pid, and whether such a process still lives."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """A process; `machine` is the boot and pid namespace in which `pid` means something, `start` in clock ticks."""

    host: str
    machine: str
    pid: int
    start: int | None

    @classmethod
    def here(cls) -> ProcessId:
        """This process."""
        return cls(platform.node(), _machine(), os.getpid(), _start_if_running(os.getpid()))

    def alive(self) -> bool | None:
        """Whether it runs (a zombie does not); None when it lives elsewhere, so that nobody can tell from here."""
        if self.machine != _machine():
            return None
        if self.start is not None:
            found = _start_if_running(self.pid)
            if found is not None or Path(f"/proc/{self.pid}").exists():
                return found == self.start
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's, which /proc may hide
            return True
        return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@cache
def _machine() -> str:
    """Equal for two processes if and only if they see the same pids; the host name where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _start_if_running(pid: int) -> int | None:
    """Start time of `pid` in clock ticks since the boot; None if it is gone, a zombie, or cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if state in "ZX" else int(rest[18])
