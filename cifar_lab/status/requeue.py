"""Whether a batch job starts, and comes back, by what its run directory says; each decision is kept in requeues.jsonl.

A job comes back while its run can be continued, and gives up after three starts without a newer checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cifar_lab.files.jsonl import append_line, last_objects
from cifar_lab.rundir.directory import State

RECORDS = "requeues.jsonl"
MAX_STARTS = 3
EXIT_ON, EXIT_FAILED, EXIT_USAGE, EXIT_COMPLETED, EXIT_REQUEUE = 0, 1, 2, 3, 75
USERS_WISH = "STOP"  # the reason of a run that was stopped by an empty file STOP, so by its user

When = Literal["start", "end"]
Verdict = Literal["go", "completed", "stopped", "requeue", "failed", "busy"]


@dataclass(frozen=True)
class Situation:
    """What a decision depends on, besides the records.

    `state` and `reason` are status.json's, `problem` why it cannot be read; `attempt` is the newest one's number and
    `holder` the name of another job or process that lives in the directory; `ours` whether that attempt is this job's.
    """

    job_id: str | None
    restart: int
    state: State | None
    reason: str | None
    checkpoint_step: int | None
    attempt: int
    ours: bool
    holder: str | None = None
    problem: str | None = None
    exit_status: int = 0


@dataclass(frozen=True)
class Decision:
    """`verdict: text` is the line for the log."""

    verdict: Verdict
    text: str
    exit_status: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.text}"


def decide(when: When, now: Situation, records: Sequence[Mapping[str, Any]]) -> Decision:
    """The rule. Before a job's step: 0 go, 3 completed already, 1 do not. After it: 0 over, 75 requeue, 1 failed."""
    if when == "start":
        return _at_start(now, _of_this_job(records, now) if now.restart else [])
    return _at_end(now, _of_this_job(records, now))


def _at_start(now: Situation, mine: Sequence[Mapping[str, Any]]) -> Decision:
    if now.problem:
        return Decision("failed", now.problem, EXIT_FAILED)
    if now.state == "completed":
        return Decision("completed", "nothing is left to do", EXIT_COMPLETED)
    if now.holder:
        return Decision("busy", f"the run is in use by {now.holder}", EXIT_FAILED)
    if _futile(now, mine) >= MAX_STARTS:
        return _given_up(now)
    where = "from the beginning" if now.checkpoint_step is None else f"from step {now.checkpoint_step}"
    return Decision("go", where, EXIT_ON)


def _at_end(now: Situation, mine: Sequence[Mapping[str, Any]]) -> Decision:
    if now.problem:
        return Decision("failed", now.problem, EXIT_FAILED)
    if now.state == "completed":
        return Decision("completed", "the run is done", EXIT_ON)
    if now.holder:
        return Decision("busy", f"the run is in use by {now.holder}", EXIT_FAILED)
    if _has_spoken(now, mine):
        if now.state == "failed":
            return Decision("failed", now.reason or "no reason is known", EXIT_FAILED)
        if now.state == "stopped" and now.reason == USERS_WISH:
            return Decision("stopped", "its user asked for it with STOP", EXIT_ON)
        why = "nobody is left" if now.state == "running" else f"{now.state}: {now.reason}"
    elif now.exit_status == EXIT_USAGE:
        return Decision(
            "failed", "what was asked for must change (exit status 2); the job's log says what", EXIT_FAILED
        )
    elif now.state is None and now.exit_status != EXIT_REQUEUE:
        why = f"the job's step ended with status {now.exit_status} before training began; its log says why"
        return Decision("failed", why, EXIT_FAILED)
    else:
        why = f"the job's step ended with status {now.exit_status} before training began"
    if _futile(now, mine) >= MAX_STARTS:
        return _given_up(now)
    return Decision("requeue", why, EXIT_REQUEUE)


def _given_up(now: Situation) -> Decision:
    where = "there is none" if now.checkpoint_step is None else f"step {now.checkpoint_step}"
    last = f"; last: {now.reason}" if now.reason else ""
    return Decision("failed", f"given up after three attempts without a newer checkpoint ({where}){last}", EXIT_FAILED)


def _of_this_job(records: Sequence[Mapping[str, Any]], now: Situation) -> list[Mapping[str, Any]]:
    """Decisions of this job since it was submitted; a cluster may give the number of an old job out again."""
    mine: list[Mapping[str, Any]] = []
    for record in records:
        if record.get("job_id") == now.job_id:
            first = record.get("when") == "start" and not record.get("restart")
            mine = [record] if first else [*mine, record]
    return mine if now.job_id is not None else []


def _futile(now: Situation, mine: Sequence[Mapping[str, Any]]) -> int:
    """How many starts, counted from the last one back, brought no checkpoint newer than the one they began with."""
    starts = [record for record in mine if record.get("when") == "start" and record.get("decision") == "go"]
    count = 0
    for record in reversed(starts):
        if _order(now.checkpoint_step) > _order(record.get("checkpoint_step")):
            break
        count += 1
    return count


def _order(step: Any) -> int:
    return step if isinstance(step, int) else -1


def _has_spoken(now: Situation, mine: Sequence[Mapping[str, Any]]) -> bool:
    """Whether status.json is from the step that ended, and not from an attempt before it."""
    begun = [record.get("attempt") for record in mine if record.get("when") == "start"]
    if begun and isinstance(begun[-1], int):
        return now.state is not None and now.ours and now.attempt > begun[-1]
    return now.state is not None and now.ours


def read_records(run_dir: Path) -> list[dict[str, Any]]:
    """The newest decisions, without what is torn or foreign; empty when there are none."""
    return [record for record in last_objects(run_dir / RECORDS) if isinstance(record.get("decision"), str)]


def write_record(run_dir: Path, when: When, now: Situation, decision: Decision) -> None:
    """Append a decision; raises OSError."""
    fields = {
        "time": round(time.time(), 3),
        "when": when,
        "job_id": now.job_id,
        "restart": now.restart,
        "state": now.state,
        "attempt": now.attempt,
        "checkpoint_step": now.checkpoint_step,
        "exit_status": now.exit_status if when == "end" else None,
        "decision": decision.verdict,
        "text": decision.text,
    }
    append_line(run_dir / RECORDS, json.dumps(fields))
