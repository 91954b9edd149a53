"""Who hangs: the verdict over the heartbeats of all ranks, as one observer saw them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cifar_lab.rundir.heartbeat import Beat, Phase

# In units of train.hang_timeout: what a phase may take without a step, a batch or another phase.
ALLOWANCE: dict[Phase, float] = {
    "start": 6, "compile": 6, "train": 1, "validation": 3, "save": 3, "test": 3, "end": 3,
}  # fmt: skip
# A process whose thread too is silent for so long is named before one that only makes no progress.
MUTE_SECONDS = 3.0
MAX_NAMED = 4


def longest_allowance(hang_timeout: float) -> float:
    """Seconds after which the watchdog has certainly decided; collectives must not time out before."""
    return max(ALLOWANCE.values()) * hang_timeout


@dataclass
class Seen:
    """A rank's last heartbeat, and for how many seconds nothing of it, or no progress, was new to the observer."""

    beat: Beat | None = None
    silent: float = 0.0
    stuck: float = 0.0

    def update(self, beat: Beat | None, seconds: float) -> None:
        """Take in what is there now, `seconds` after the last time."""
        old = self.beat
        self.silent += seconds
        self.stuck += seconds
        if beat is None:
            return
        if old is None or beat.count != old.count or beat.ended:
            self.silent = 0.0
        if old is None or beat.progress != old.progress:
            self.stuck = 0.0
        self.beat = beat

    @property
    def ended(self) -> bool:
        return self.beat is not None and self.beat.ended

    @property
    def progress(self) -> int:
        return self.beat.progress if self.beat else -1

    def allowance(self, hang_timeout: float) -> float:
        return hang_timeout * ALLOWANCE[self.beat.phase if self.beat else "start"]


@dataclass(frozen=True)
class Hang:
    """What the watchdog decided: a sentence, and the lowest rank that still answers and speaks for all."""

    reason: str
    speaker: int


def judge(peers: dict[int, Seen], hang_timeout: float) -> Hang | None:
    """Who hangs, if anybody does; `peers` holds every rank of the run.

    That is a process which is silent for its allowance, or those with the least progress when all of them are stuck
    for theirs. Processes ahead of them only wait, however long.
    """
    running = {rank: seen for rank, seen in peers.items() if not seen.ended}
    if not running:
        return None
    least = min(seen.progress for seen in running.values())
    behind = {rank: seen for rank, seen in running.items() if seen.progress == least}
    dead = {rank: seen for rank, seen in running.items() if seen.silent > seen.allowance(hang_timeout)}
    if not dead and any(seen.stuck <= seen.allowance(hang_timeout) for seen in behind.values()):
        return None
    mute_seconds = min(MUTE_SECONDS, hang_timeout / 2)
    mute = dead or {rank: seen for rank, seen in running.items() if seen.silent > mute_seconds}
    speaker = min(running.keys() - mute.keys(), default=min(running))
    if mute:
        return Hang(_several(_mute_text(rank, seen) for rank, seen in mute.items()), speaker)
    if len(peers) == 1:
        return Hang(f"this process {_stuck_text(running[speaker])}", speaker)
    if len(behind) < len(running):
        names = (f"{_name(rank, seen)} runs but {_stuck_text(seen)}" for rank, seen in behind.items())
        return Hang(_several(names) + ", behind the others", speaker)
    together = f"the other processes {_stuck_text(running[speaker])}"
    if len(running) < len(peers):
        gone = (f"{_name(rank, seen)} has left the run" for rank, seen in peers.items() if seen.ended)
        return Hang(f"{_several(gone)} and {together}", speaker)
    return Hang(
        f"all {len(peers)} processes {_stuck_text(running[speaker])}: a collective or the network hangs", speaker
    )


def _name(rank: int, seen: Seen) -> str:
    return f"rank {rank} ({seen.beat.process})" if seen.beat else f"rank {rank}"


def _mute_text(rank: int, seen: Seen) -> str:
    if seen.beat is None:
        return f"rank {rank} never wrote a heartbeat"
    beat = seen.beat
    return (
        f"{_name(rank, seen)} gives no sign of life for {seen.silent:.0f} s, in phase {beat.phase} at step {beat.step}"
    )


def _stuck_text(seen: Seen) -> str:
    assert seen.beat is not None, "who never wrote is mute"
    return f"made no progress for {seen.stuck:.0f} s, in phase {seen.beat.phase} at step {seen.beat.step}"


def _several(texts: Iterable[str]) -> str:
    listed = list(texts)
    rest = [f"{len(listed) - MAX_NAMED} more"] if len(listed) > MAX_NAMED else []
    return "; ".join([*listed[:MAX_NAMED], *rest])
