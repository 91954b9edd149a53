"""Workers that do not outlive their launcher: after `kill -9` of torchrun they would train, and write, on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 40.0
POLL_SECONDS = 1.0


def die_with_parent(grace: float = GRACE_SECONDS) -> None:
    """When the launcher dies, get SIGTERM (so save and stop), and SIGKILL `grace` seconds later. Linux only.

    Does nothing in a process that no launcher started. Call it in the main thread, as early as possible: the kernel
    forgets the request with the thread that made it. It counts the death of the launcher's thread that forked
    us, which for torchrun, accelerate launch and deepspeed is the main one.
    """
    parent = os.getppid()
    if sys.platform != "linux" or not (_has_launcher() or _is_accelerate(parent)):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    gone = os.getppid() != parent or (parent == 1 and not _is_python(parent))  # it died before we asked
    threading.Thread(target=_end_after, args=(parent, gone, grace), name="launcher watch", daemon=True).start()


def _end_after(parent: int, gone: bool, grace: float) -> None:
    """Wait until `parent` is gone, then end this process, hard if it does not end by itself."""
    wait = threading.Event().wait
    while not gone:
        wait(POLL_SECONDS)
        gone = os.getppid() != parent
    os.kill(os.getpid(), signal.SIGTERM)
    wait(grace)
    os.kill(os.getpid(), signal.SIGKILL)


def _has_launcher() -> bool:
    return "LOCAL_RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ


def _is_accelerate(pid: int) -> bool:
    """Whether `pid` is `accelerate launch`, which sets no variable of its own for a single process."""
    names = {os.path.basename(argument) for argument in _command_line(pid)}
    return bool(names & {"accelerate", "accelerate-launch", "accelerate.commands.launch"})


def _is_python(pid: int) -> bool:
    """Whether `pid` could be a launcher: in a container it may be process 1 itself."""
    return any("python" in argument or "torchrun" in argument for argument in _command_line(pid)[:2])


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
