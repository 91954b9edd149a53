"""Who hangs: the verdict over the heartbeats of all ranks, as one observer saw them."""

from collections.abc import Sequence
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

    rank: int
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

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.beat.process})" if self.beat else f"rank {self.rank}"

    def told(self, what: str, seconds: float) -> str:
        """Since when, and where it was then."""
        if self.beat is None:
            return "never wrote a heartbeat"
        return f"{what} for {seconds:.0f} s, in phase {self.beat.phase} at step {self.beat.step}"


@dataclass(frozen=True)
class Hang:
    """What the watchdog decided: a sentence, and the lowest rank that still answers and speaks for all."""

    reason: str
    speaker: int


def judge(peers: Sequence[Seen], hang_timeout: float) -> Hang | None:
    """Who hangs, if anybody does; `peers` are all ranks of the run.

    That is a process which is silent for its allowance, or those with the least progress when all of them are stuck
    for theirs. Processes ahead of them only wait, however long.
    """
    running = [seen for seen in peers if not seen.ended]
    if not running:
        return None
    least = min(seen.progress for seen in running)
    behind = [seen for seen in running if seen.progress == least]
    dead = [seen for seen in running if seen.silent > seen.allowance(hang_timeout)]
    if not dead and any(seen.stuck <= seen.allowance(hang_timeout) for seen in behind):
        return None
    mute = dead or [seen for seen in running if seen.silent > min(MUTE_SECONDS, hang_timeout / 2)]
    speaker = next((seen for seen in running if seen not in mute), running[0])
    if mute:
        reason = _listed([f"{seen} {seen.told('has sent no heartbeat', seen.silent)}" for seen in mute])
    elif len(behind) < len(running) or len(peers) == 1:
        reason = _listed([f"{seen} runs but {seen.told('made no progress', seen.stuck)}" for seen in behind])
    else:
        left = _listed([f"{seen} has left the run" for seen in peers if seen.ended])
        together = speaker.told("made no progress", speaker.stuck)
        reason = f"all {len(running)} processes {together}: {left or 'a collective or the network hangs'}"
    return Hang(reason, speaker.rank)


def _listed(texts: Sequence[str]) -> str:
    more = [f"{len(texts) - MAX_NAMED} more"] if len(texts) > MAX_NAMED else []
    return "; ".join([*texts[:MAX_NAMED], *more])
