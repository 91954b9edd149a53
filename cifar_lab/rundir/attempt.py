"""Who runs a run directory now: one attempt at a time, numbered, taken over only when its processes are gone.

Attempt N belongs to whoever creates the empty file `.attempt-N` (exclusive create, which is atomic on NFS too);
attempt.json then says who that is. The next attempt makes `.attempt-N+1` and removes the older ones.
"""

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from cifar_lab.errors import UsageError, UserError
from cifar_lab.files import atomic
from cifar_lab.files.process import ProcessId
from cifar_lab.rundir.heartbeat import FOLDER, Beat, read_beats

# Without a changed heartbeat for so long, a process on another machine counts as gone. Above the 60 s for which an NFS
# client may show old attributes it would be safer still, but claiming writes to the folder, which refreshes them.
SILENT_SECONDS = 60.0
POLL_SECONDS = 0.25
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")

log = logging.getLogger("cifar_lab")


@dataclass(frozen=True)
class Attempt:
    """One hold on the run directory `folder`, as attempt.json says it; times are Unix seconds.

    Rank 0 claims it, every rank may check it.
    """

    folder: Path
    number: int
    process: ProcessId
    job_id: str | None
    started: float
    ended: float | None = None

    def __str__(self) -> str:
        job = f", job {self.job_id}" if self.job_id else ""
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"attempt {self.number} ({self.process}{job}, started {started})"

    def still_ours(self) -> bool:
        """Whether nobody has taken the directory over; two `stat`s."""
        return os.path.exists(_marker(self.folder, self.number)) and not os.path.exists(
            _marker(self.folder, self.number + 1)
        )

    def check(self) -> None:
        """Raise UserError if the directory was taken over; call it before every rename of a file of the run."""
        if not self.still_ours():
            raise UserError(
                f"{self.folder} was taken over by {read_attempt(self.folder) or 'another process'}: attempt "
                f"{self.number} ends without writing anything more"
            )

    def release(self) -> None:
        """Say that it is over, so that the next start need not wait for silence. Rank 0 calls it last."""
        if self.still_ours():
            try:
                replace(self, ended=time.time()).write()
            except OSError as error:  # a start on this machine sees that the process is gone anyway
                log.warning("cannot write %s: %s", self.folder / "attempt.json", error.strerror)

    def write(self) -> None:
        """Write attempt.json, which may lie elsewhere for another reader."""
        fields = asdict(self)
        del fields["folder"]
        atomic.write_json(self.folder / "attempt.json", fields)


ATTEMPT = TypeAdapter(Attempt)


def claim(folder: Path) -> Attempt:
    """Make the run directory `folder` ours, as the next attempt; makes it if need be.

    Raises UserError at once while its holder lives. Where that cannot be told from here (another machine, or peers of
    a dead rank 0 on their way out), watches their heartbeats for up to SILENT_SECONDS first. Raises UsageError where
    it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = _latest(folder)
            if number:
                _await_end(folder, number)
            attempt = _try_next(folder, number + 1)
            if attempt is not None:
                return attempt
    except OSError as error:
        raise UsageError(
            f"cannot write the run directory {folder}: {error.strerror}; free some space there or choose another place "
            "with --runs DIR"
        ) from error


def read_attempt(folder: Path) -> Attempt | None:
    """Who holds `folder` or did last; None if there is no attempt.json or it is damaged."""
    try:
        fields = json.loads((folder / "attempt.json").read_bytes())
        return ATTEMPT.validate_python(fields | {"folder": folder})
    except (OSError, ValueError, TypeError):
        return None


def last_sign(folder: Path, beats: Iterable[Beat]) -> float:
    """When the holder last wrote, in the file system's seconds; NFS knows the age of a file that was just read."""
    return last_written([folder / "attempt.json", *(folder / FOLDER / f"{beat.rank}.json" for beat in beats)])


def last_written(paths: Iterable[Path]) -> float:
    """The newest change among files, 0 where there are none."""
    times = [0.0]
    for path in paths:
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def _try_next(folder: Path, number: int) -> Attempt | None:
    """Attempt `number`, None if somebody else was faster."""
    marker = _marker(folder, number)
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return None
    try:
        if _latest(folder) != number:  # so slow that `number` was taken, left and cleared away meanwhile
            marker.unlink()
            return None
        job_id = next((os.environ[name] for name in JOB_VARIABLES if os.environ.get(name)), None)
        attempt = Attempt(folder, number, ProcessId.here(), job_id, time.time())
        attempt.write()
    except BaseException:
        marker.unlink(missing_ok=True)
        raise
    for older in _markers(folder):
        if older < number:
            _marker(folder, older).unlink(missing_ok=True)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    return attempt


def _await_end(folder: Path, number: int) -> None:
    """Return when attempt `number` is over or no longer the latest; raise UserError while it lives."""
    begun = time.monotonic()
    first: dict[int, int] | None = None
    told = False
    while _latest(folder) == number:
        holder = read_attempt(folder)
        if holder is not None and holder.number != number:
            holder = None  # being claimed at this moment, or its claimant died at it
        beats = [beat for beat in read_beats(folder) if beat.attempt == number and not beat.ended]
        beats = [beat for beat in beats if beat.process.alive() is not False]
        living = None if holder is None else holder.ended is None and holder.process.alive()
        waited = time.monotonic() - begun
        if living or waited > SILENT_SECONDS + 5:
            raise _refusal(folder, number, holder, beats)
        if living is None:
            counts = {beat.rank: beat.count for beat in beats}
            if first is not None and any(counts[rank] != first.get(rank) for rank in counts):
                raise _refusal(folder, number, holder, beats)
            first = counts
        local = any(beat.process.alive() for beat in beats)
        unknown = living is None or any(beat.process.alive() is None for beat in beats)
        if not local and (not unknown or _silence(folder, number, beats) > SILENT_SECONDS):
            return
        if waited > 2 and not told:
            told = True
            log.warning("waiting to see whether attempt %d of %s still runs", number, folder)
        time.sleep(POLL_SECONDS)


def _silence(folder: Path, number: int, beats: list[Beat]) -> float:
    """Seconds since the attempt last wrote, by the clock of the file system alone."""
    clock = folder / f"{atomic.TEMPORARY_PREFIX}clock-{os.getpid()}"
    clock.write_bytes(b"")
    try:
        now = clock.stat().st_mtime
    finally:
        clock.unlink(missing_ok=True)
    return now - max(last_sign(folder, beats), last_written([_marker(folder, number)]))


def _refusal(folder: Path, number: int, holder: Attempt | None, beats: list[Beat]) -> UserError:
    processes = [beat.process for beat in beats]
    if holder is not None and holder.ended is None and holder.process.alive() is not False:
        processes.insert(0, holder.process)
    end = f". If it hangs, end it with `kill -9 {processes[0].pid}` on {processes[0].host}" if processes else ""
    return UserError(
        f"{folder} is in use by {holder or f'attempt {number}'}: wait for it, ask it to stop with "
        f"`touch {folder / 'STOP'}`, or start a new run with --fresh{end}"
    )


def _marker(folder: Path, number: int) -> Path:
    return folder / f".attempt-{number}"


def _markers(folder: Path) -> list[int]:
    names = map(re.compile(r"\.attempt-([1-9][0-9]*)").fullmatch, os.listdir(folder))
    return [int(name[1]) for name in names if name]


def _latest(folder: Path) -> int:
    """The highest attempt so far, 0 before the first."""
    return max(_markers(folder), default=0)
