"""What asks a run to stop: signals, and the end of its launcher. The loop saves and ends at a step boundary."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
GRACE_SECONDS = 40.0
POLL_SECONDS = 1.0


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
    previous = {number: signal.signal(number, flag) for number in STOPPING if not _is_kept_away(number)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_kept_away(number: signal.Signals) -> bool:
    """Whether nohup ignores a closed terminal for us: not where torchrun, which does not ask nohup, ends for it."""
    ends_torchrun = number.name in os.environ.get("TORCHELASTIC_SIGNALS_TO_HANDLE", "").split(",")
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN and not ends_torchrun


def end_quietly() -> None:
    """A run that has saved and ends: another signal must not change its exit status."""
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # a Python handler is gone early in the interpreter's end


def die_with_parent(grace: float = GRACE_SECONDS) -> None:
    """When the launcher dies, get SIGTERM (so save and stop), and SIGKILL `grace` seconds later.

    After `kill -9` of torchrun its workers would train, and write, on. Does nothing where no launcher started us.
    """
    import psutil

    parent, words = os.getppid(), []
    for process in psutil.Process().parents():
        with suppress(psutil.Error):  # it is gone, or not ours to look at
            words.append({os.path.basename(argument) for argument in process.cmdline()})
    # `accelerate launch` sets no variable of its own for a single process.
    by_accelerate = words and words[0] & {"accelerate", "accelerate-launch", "accelerate.commands.launch"}
    if "LOCAL_RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ or by_accelerate:
        # Whoever lost torchrun before this was asked has init for a parent, or whatever else takes up orphans.
        python = any(word.startswith(("python", "torchrun")) for of_one in words for word in of_one)
        gone = "TORCHELASTIC_RUN_ID" in os.environ and not python
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
