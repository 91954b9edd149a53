"""How a run directory stands: what it says, who works in it, what its jobs decided. Reads little and writes nothing."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifar_lab.checkpoint.files import list_checkpoints
from cifar_lab.cli.printable import duration
from cifar_lab.files.jsonl import last_objects
from cifar_lab.rundir.attempt import SILENT_SECONDS, Attempt, last_sign, read_attempt
from cifar_lab.rundir.directory import RunDir, State, Status
from cifar_lab.rundir.heartbeat import INTERVAL, Beat, read_beats

RECORDS = "requeues.jsonl"
# The clock of the file server may be another than ours, and a reader must not write to learn it: whoever is silent for
# less than an hour is looked at twice.
CLOCK_ALLOWANCE, CLOCK_DOUBT = 30.0, 3600.0


@dataclass(frozen=True)
class Standing:
    """All that is asked of a run directory, once.

    `problem` is why status.json cannot be read. `save_every` are the steps of a save interval or an epoch, whichever is
    less (1 where unknown). `holder` had the directory last, and `beats` are of its processes;
    `alive` says whether any of them is, None when they run on another machine and were heard of lately. `records` are
    the newest decisions of its jobs.
    """

    status: Status | None = None
    problem: str | None = None
    checkpoint_step: int | None = None
    save_every: int = 1
    holder: Attempt | None = None
    beats: list[Beat] = field(default_factory=list)
    alive: bool | None = False
    silent_seconds: float = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> State | None:
        return self.status.state if self.status else None

    @property
    def reason(self) -> str | None:
        return self.status.reason if self.status else None

    @property
    def attempt(self) -> int:
        """The holder's number, 0 without one."""
        return self.holder.number if self.holder else 0

    def epitaph(self) -> str:
        """Who is gone, for a run that says it is running, or should have begun."""
        if self.holder is None:
            return "no process is known to run it" if self.status else "its job ended before training began"
        if self.holder.ended is not None or self.holder.process.alive() is False:
            return f"{self.holder.process} is gone"
        return f"no heartbeat from {self.holder.process} for {duration(self.silent_seconds)}"


def read_standing(path: Path, now: float | None = None) -> Standing:
    """Judge by processes of this machine, and by the age of heartbeats of others; never raises."""
    status, problem, checkpoints, save_every = None, None, [], 1
    try:
        status = RunDir(path).status()
        save_every = RunDir(path).env().get("save_every", 1)
        checkpoints = list_checkpoints(path / "checkpoints")
    except (OSError, ValueError) as error:
        problem = " ".join(str(error).split())
    holder = read_attempt(path)
    beats = [beat for beat in read_beats(path) if holder is not None and beat.attempt == holder.number]
    silent_seconds = (time.time() if now is None else now) - last_sign(path, beats)
    processes = [beat.process for beat in beats if not beat.ended]
    if holder is not None and holder.ended is None:
        processes.append(holder.process)
    signs = {process.alive() for process in processes}
    lately = silent_seconds < SILENT_SECONDS + CLOCK_ALLOWANCE
    if None in signs and True not in signs and not lately and silent_seconds < CLOCK_DOUBT:
        time.sleep(3 * INTERVAL)
        lately = any(beat not in beats for beat in read_beats(path))
    return Standing(
        status=status,
        problem=problem,
        checkpoint_step=int(checkpoints[-1].name.removeprefix("step_")) if checkpoints else None,
        save_every=save_every,
        holder=holder,
        beats=beats,
        alive=True if True in signs else None if None in signs and lately else False,
        silent_seconds=silent_seconds,
        records=[record for line in last_objects(path / RECORDS) if (record := _record(line)) is not None],
    )


def _record(line: dict[str, Any]) -> dict[str, Any] | None:
    """One decision, None for what is foreign."""
    match line:
        case {"decision": str(), "time": int() | float(), "job_id": str() | None}:
            return line
    return None
