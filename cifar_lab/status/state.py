"""What a run directory says now: state, progress, pace. Reads little, writes nothing, never raises."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cifar_lab.checkpoint.files import list_checkpoints
from cifar_lab.rundir.directory import RunDir, Status
from cifar_lab.status.liveness import Life, read_life
from cifar_lab.status.metrics_tail import MetricsTail, read_tail
from cifar_lab.status.requeue import RECORDS, read_records
from cifar_lab.status.slurm_queue import Job, Queue

EffectiveState = Literal[
    "running", "starting", "queued", "completed", "stopped", "interrupted", "lost", "failed", "corrupt", "new"
]
ACTIVE: tuple[EffectiveState, ...] = ("running", "starting", "queued")
SIGNS_OF_A_RUN = ("recipe.yaml", "status.json", "attempt.json", "job.json", RECORDS)
JOB_FILE = "job.json"
DEPTH = 8


@dataclass(frozen=True)
class RunState:
    """One run as it is now.

    `state` is status.json's and may be old: `effective_state` is what is true (`lost`: it says running, but nobody is
    alive; `queued`: a job waits to start or continue it). `reason` says why it does not run; `message` is for people.
    """

    path: Path
    state: str | None
    effective_state: EffectiveState
    reason: str | None = None
    step: int = 0
    total_steps: int = 0
    val_error: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    job: Job | None = None
    job_id: str | None = None
    checkpoint_step: int | None = None
    message: str = ""
    updated: float = 0.0

    @property
    def active(self) -> bool:
        """Whether something may still happen without anybody's doing."""
        return self.effective_state in ACTIVE or (self.job is not None and self.effective_state != "completed")

    def fields(self) -> dict[str, Any]:
        """As JSON values."""
        job = self.job and {"id": self.job.id, "state": self.job.state, "reason": self.job.reason}
        return {
            "run_dir": str(self.path),
            "state": self.state,
            "effective_state": self.effective_state,
            "active": self.active,
            "reason": self.reason,
            "step": self.step,
            "total_steps": self.total_steps,
            "val_error": self.val_error,
            "images_per_second": self.images_per_second,
            "seconds_left": self.seconds_left,
            "job": job and {**job, "nodes": self.job and self.job.nodes},
            "checkpoint_step": self.checkpoint_step,
            "message": self.message,
        }


def find_runs(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Run directories at or below `folder`, also those that only wait for their job; never looks inside of one."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        if any(entry.name in SIGNS_OF_A_RUN for entry in found):
            yield folder
            return
        below = [Path(e.path) for e in found if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in below if depth else []:
        yield from find_runs(path, depth - 1)


def read_run(path: Path, queue: Queue | None = None, now: float | None = None) -> RunState:
    """The state of one run; `now` in Unix seconds."""
    queue, now = queue or Queue(), time.time() if now is None else now
    try:
        status, problem = checked_status(path), None
        os.listdir(path) if path.exists() else None
    except (OSError, ValueError) as error:
        status, problem = None, " ".join(str(error).split())
    life = read_life(path, now)
    # What another job decided that went away again says nothing of the run.
    records = [record for record in read_records(path) if record["decision"] != "busy"]
    job_ids = _job_ids(path, life, records)
    job = next((queue.jobs[id_] for id_ in job_ids if id_ in queue.jobs), None)
    last = records[-1] if records and (records[-1].get("attempt") or 0) == life.number else None
    known: dict[str, Any] = {
        "path": path,
        "job": job,
        "job_id": job.id if job else next(iter(job_ids), None) or None,
        "checkpoint_step": newest_checkpoint(path),
        "updated": status.updated if status else _changed(path),
    }
    if problem:
        return RunState(state=None, effective_state="corrupt", reason=problem, message=problem, **known)
    effective = _effective(status, life, job, last, left=queue.known and any(job_ids))
    metrics = read_tail(path / "metrics.jsonl", life.holder.started if life.holder else 0.0)
    step = status.step if status else 0
    if effective == "running":  # status.json is written at log lines only
        step = max([step, *(beat.step for beat in life.beats)])
    reason = _reason(effective, status, life, last)
    left = metrics.seconds_left(step, status.total_steps, now) if status and effective == "running" else None
    return RunState(
        state=status.state if status else None,
        effective_state=effective,
        reason=reason,
        step=step,
        total_steps=status.total_steps if status else 0,
        val_error=metrics.val_error,
        images_per_second=metrics.images_per_second,
        seconds_left=left,
        message=reason or _message(effective, life, metrics),
        **known,
    )


def checked_status(path: Path) -> Status | None:
    """status.json, None without one; raises ValueError or OSError where it is damaged, foreign or unreadable."""
    status = RunDir(path).status()
    if status is not None:
        numbers = (status.step, status.total_steps, status.attempt, status.updated)
        sound = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)
        if not sound or not isinstance(status.reason, str | None):
            raise ValueError(f"{path / 'status.json'} is damaged; delete it, and the next start writes it anew")
    return status


def newest_checkpoint(path: Path) -> int | None:
    """Step of the newest complete checkpoint."""
    try:
        found = list_checkpoints(path / "checkpoints")
    except OSError:
        return None
    return int(found[-1].name.removeprefix("step_")) if found else None


def _effective(
    status: Status | None, life: Life, job: Job | None, last: dict[str, Any] | None, *, left: bool
) -> EffectiveState:
    if status is not None and status.state == "completed":
        return "completed"
    if not life.gone:
        if status is None or status.attempt != life.number:
            return "starting"
        return status.state
    if job is not None:
        if job.waits:
            return "queued"
        if last["decision"] == "go" if last else status is None:
            return "starting"
    if last is not None and last["decision"] == "failed" and status is None:
        return "failed"
    if status is None:
        return "lost" if life.holder is not None or left or last is not None else "new"
    return "lost" if status.state == "running" else status.state


def _reason(effective: EffectiveState, status: Status | None, life: Life, last: dict[str, Any] | None) -> str | None:
    """Why the run does not go on: the wrapper's last word if it ended the matter, else the trainer's, else ours."""
    if effective in ("completed", "running", "starting"):
        return None
    own = status.reason if status and status.state != "running" else None
    if status is not None and status.state == "running":
        own = life.epitaph()
    elif status is None and effective == "lost":
        own = life.epitaph() if life.holder else "its job ended before training began; see the job's log"
        if last is not None and last["decision"] != "go":
            own = str(last.get("text"))
    if last is not None and last["decision"] == "failed":
        said = str(last.get("text") or "")
        own = said if own is None or own in said else f"{said} ({own})" if said else own
    return own


def _message(effective: EffectiveState, life: Life, metrics: MetricsTail) -> str:
    if effective == "completed":
        return "" if metrics.test_error is None else f"test error {metrics.test_error:.2%}"
    if effective == "starting":
        return "starts"
    if effective != "running":
        return ""
    phase = life.beats[0].phase if life.beats else "train"
    return metrics.last_line() if phase == "train" else phase


def _job_ids(path: Path, life: Life, records: list[dict[str, Any]]) -> list[str]:
    """Jobs that have to do with the run, that of its living attempt or the latest first; "" for a start without one."""
    found: list[tuple[float, str]] = []
    try:
        with open(path / JOB_FILE, encoding="utf-8") as file:
            submitted = json.loads(file.read(4096))
        match submitted:
            case {"job_id": str(job_id), "submitted": int() | float() as when}:
                found.append((when, job_id))
    except (OSError, ValueError):
        pass
    if life.holder:
        found.append((life.holder.started if life.gone else float("inf"), life.holder.job_id or ""))
    if records and isinstance(records[-1].get("job_id"), str) and isinstance(records[-1].get("time"), (int, float)):
        found.append((records[-1]["time"], records[-1]["job_id"]))
    return list(dict.fromkeys(job_id for _, job_id in sorted(found, reverse=True)))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
