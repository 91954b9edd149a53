"""What a run does now: state, progress, pace, and why it does not go on."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cifar_lab.files.jsonl import parse_object
from cifar_lab.rundir.attempt import last_written
from cifar_lab.status.metrics_tail import MetricsTail, read_tail
from cifar_lab.status.slurm_queue import Job, Queue
from cifar_lab.status.standing import Standing, read_standing

EffectiveState = Literal[
    "running", "starting", "queued", "lost", "failed", "interrupted", "stopped", "corrupt", "new", "completed"
]
ACTIVE: tuple[EffectiveState, ...] = ("running", "starting", "queued")


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
        fields = asdict(self)
        return {"run_dir": str(fields.pop("path")), **fields, "active": self.active}


def read_run(path: Path, queue: Queue | None = None, now: float | None = None) -> RunState:
    """The state of one run; `now` in Unix seconds. Never raises for what is in the directory."""
    queue, now = queue or Queue(), time.time() if now is None else now
    standing = read_standing(path, now)
    # What another job decided that went away again says nothing of the run.
    records = [record for record in standing.records if record["decision"] != "busy"]
    last = records[-1] if records and (records[-1].get("attempt") or 0) == standing.attempt else None
    job_ids = _job_ids(path, standing, records)
    job = next((queue.jobs[id_] for id_ in job_ids if id_ in queue.jobs), None)
    effective = _effective(standing, job, last, left=queue.known and any(job_ids))
    reason = None if effective in ("running", "starting", "completed") else _reason(standing, effective, last)
    metrics = read_tail(path / "metrics.jsonl", standing.holder.started if standing.holder else 0.0)
    status, running = standing.status, effective == "running"
    # status.json is written at log lines only, heartbeats at every step.
    steps = [status.step if status else 0, *(beat.step for beat in standing.beats if running)]
    return RunState(
        path=path,
        state=standing.state,
        effective_state=effective,
        reason=reason,
        step=max(steps),
        total_steps=status.total_steps if status else 0,
        val_error=metrics.val_error,
        images_per_second=metrics.train.get("images_per_second"),
        seconds_left=metrics.seconds_left(status.total_steps, now) if status and running else None,
        job=job,
        job_id=job.id if job else next(iter(job_ids), None) or None,
        checkpoint_step=standing.checkpoint_step,
        message=reason or _message(effective, standing, metrics),
        updated=status.updated if status else last_written([path]),
    )


def _effective(standing: Standing, job: Job | None, last: dict[str, Any] | None, *, left: bool) -> EffectiveState:
    """What is true; `left`: the run had a job, and the queue would know it."""
    status = standing.status
    if standing.problem:
        return "corrupt"
    if status is not None and status.state == "completed":
        return "completed"
    if standing.alive is not False:
        return "starting" if status is None or status.attempt != standing.attempt else status.state
    if job is not None and job.waits:
        return "queued"
    if job is not None and (last["decision"] == "go" if last else status is None):
        return "starting"
    if status is not None:
        return "lost" if status.state == "running" else status.state
    if last is not None and last["decision"] == "failed":
        return "failed"
    return "lost" if standing.holder is not None or left or last is not None else "new"


def _reason(standing: Standing, effective: EffectiveState, last: dict[str, Any] | None) -> str | None:
    """Why the run does not go on: the wrapper's last word if it ended the matter, else the trainer's, else ours."""
    if standing.problem:
        return standing.problem
    own = standing.epitaph() if effective == "lost" or standing.state == "running" else standing.reason
    final = last is not None and (
        last["decision"] == "failed" or (standing.status is None and last["decision"] != "go")
    )
    said = str(last.get("text") or "") if last is not None and final else ""
    if standing.status is None or not own or own in said:
        return said or own
    return f"{said} ({own})" if said else own


def _message(effective: EffectiveState, standing: Standing, metrics: MetricsTail) -> str:
    if effective == "completed":
        return "" if metrics.test_error is None else f"test error {metrics.test_error:.2%}"
    if effective == "starting":
        return "starts"
    phase = standing.beats[0].phase if standing.beats else "train"
    if effective != "running":
        return ""
    return metrics.last_line() if phase == "train" else phase


def _job_ids(path: Path, standing: Standing, records: list[dict[str, Any]]) -> list[str]:
    """Jobs that have to do with the run, that of its living attempt or the latest first; "" for a start without one."""
    found = [(record["time"], record["job_id"] or "") for record in records[-1:]]
    if standing.holder:
        begun = standing.holder.started if standing.alive is False else float("inf")
        found.append((begun, standing.holder.job_id or ""))
    try:
        match parse_object((path / "job.json").read_bytes()):
            case {"job_id": str(job_id), "submitted": int() | float() as submitted}:
                found.append((submitted, job_id))
    except OSError:
        pass
    return list(dict.fromkeys(job_id for _, job_id in sorted(found, reverse=True)))
