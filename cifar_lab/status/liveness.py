"""Whether anybody works in a run directory, told by reading alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cifar_lab.rundir.attempt import SILENT_SECONDS, Holder, read_attempt
from cifar_lab.rundir.heartbeat import FOLDER, Beat, read_beats

# The clock of the file server may be another than ours, and a reader must not write to learn it.
CLOCK_ALLOWANCE = 30.0


@dataclass(frozen=True)
class Life:
    """Who held the run directory last, what its processes said, and whether they live.

    `alive` is None when they run on another machine and were heard of lately; `silence` is in seconds.
    """

    holder: Holder | None
    beats: list[Beat]
    alive: bool | None
    silence: float

    @property
    def number(self) -> int:
        """The holder's attempt, 0 without one."""
        return self.holder.number if self.holder else 0

    @property
    def gone(self) -> bool:
        """Whether nobody is left."""
        return self.alive is False

    def epitaph(self) -> str:
        """Who is gone, for a run that says it is running."""
        if self.holder is None:
            return "no process is known to run it"
        if self.holder.ended is not None or self.holder.process.alive() is False:
            return f"{self.holder.process} is gone"
        return f"nothing heard of {self.holder.process} for {_roughly(self.silence)}"


def read_life(folder: Path, now: float | None = None) -> Life:
    """Judge by processes of this machine, and by the age of heartbeats of others; writes nothing."""
    holder = read_attempt(folder)
    if holder is None:
        return Life(None, [], False, float("inf"))
    beats = [beat for beat in read_beats(folder) if beat.attempt == holder.number]
    silence = (time.time() if now is None else now) - _last_sign(folder, holder, beats)
    processes = [beat.process for beat in beats if not beat.ended]
    if holder.ended is None:
        processes.append(holder.process)
    signs = {process.alive() for process in processes}
    alive: bool | None = True in signs
    if not alive and None in signs and silence < SILENT_SECONDS + CLOCK_ALLOWANCE:
        alive = None
    return Life(holder, beats, alive, silence)


def _last_sign(folder: Path, holder: Holder, beats: list[Beat]) -> float:
    """When the attempt last wrote, in the file system's seconds; NFS knows the age of a file that was just read."""
    times = [0.0]
    for path in [folder / "attempt.json", *(folder / FOLDER / f"{beat.rank}.json" for beat in beats)]:
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def _roughly(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"
