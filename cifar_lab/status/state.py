"""What a run does now: state, progress, pace, and why it does not go on."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cifar_lab.cli.printable import percent
from cifar_lab.files.jsonl import last_lines, parse_object
from cifar_lab.rundir.attempt import last_written
from cifar_lab.status.slurm_queue import Job, Queue
from cifar_lab.status.standing import Standing, read_standing

EffectiveState = Literal[
    "running", "starting", "queued", "lost", "failed", "interrupted", "stopped", "corrupt", "new", "completed"
]
TAIL_BYTES = 2**20
PACE_LINES = 200
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
        return "" if metrics.test_error is None else f"test error {percent(metrics.test_error)}"
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


@dataclass(frozen=True)
class MetricsTail:
    """The newest numbers of metrics.jsonl: its last training line, and what others hold; `pace` in seconds a step."""

    train: dict[str, Any]
    val_error: float | None
    test_error: float | None
    pace: float | None

    def seconds_left(self, total_steps: int, now: float) -> float | None:
        """Until `total_steps`, at the pace of the last log lines; the time since the last one counts."""
        if self.pace is None:
            return None
        left: float = self.pace * (total_steps - self.train["step"]) - (now - self.train["time"])
        return max(0.0, left)

    def last_line(self) -> str:
        """Epoch and loss, for people."""
        known = (("epoch {:.1f}", self.train.get("epoch")), ("loss {:.4f}", self.train.get("loss")))
        return ", ".join(text.format(value) for text, value in known if isinstance(value, (int, float)))


def read_tail(path: Path, since: float = 0.0) -> MetricsTail:
    """From the file's last bytes; the pace is that of lines written after `since`, the start of the attempt."""
    lines = last_lines(path, TAIL_BYTES)
    train = [found for line in lines[-PACE_LINES:] if (found := _of_split(line, "train")) is not None]
    return MetricsTail(
        train=train[-1] if train else {},
        val_error=_error(lines, "val"),
        test_error=_error(lines, "test"),
        pace=_pace([line for line in train if line["time"] >= since]),
    )


def _of_split(line: bytes, split: str) -> dict[str, Any] | None:
    """The line as an object if it is of this split; others are not parsed."""
    found = parse_object(line) if split.encode() in line else None
    match found:
        case {"split": found_split, "step": int(), "time": int() | float()} if found_split == split:
            return found
    return None


def _error(lines: list[bytes], split: str) -> float | None:
    newest = next((found for line in reversed(lines) if (found := _of_split(line, split)) is not None), {})
    accuracy = newest.get("accuracy")  # null where the network gave NaN
    return 1 - accuracy if isinstance(accuracy, (int, float)) else None


def _pace(train: list[dict[str, Any]]) -> float | None:
    steps = train[-1]["step"] - train[0]["step"] if train else 0
    return (train[-1]["time"] - train[0]["time"]) / steps if steps > 0 else None
