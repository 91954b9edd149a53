"""Whether a batch job starts, and comes back, by what its run directory says; each decision is kept in requeues.jsonl.

A job comes back while its run can be continued, and gives up after three starts that together saved less than a save
interval or an epoch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cifar_lab.errors import UserError
from cifar_lab.files.jsonl import append_line
from cifar_lab.recipe import load_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.placement import Place, startable
from cifar_lab.status.slurm_queue import read_queue, too_short
from cifar_lab.status.standing import RECORDS, Standing, read_standing

MAX_STARTS = 3
EXIT_ON, EXIT_FAILED, EXIT_USAGE, EXIT_COMPLETED, EXIT_REQUEUE = 0, 1, 2, 3, 75
USERS_WISH = "STOP"  # the reason of a run that was stopped by an empty file STOP, so by its user

When = Literal["start", "end"]
Verdict = Literal["go", "completed", "stopped", "requeue", "failed", "busy"]


def located(recipe: str, overrides: Sequence[str], place: Place) -> Path:
    """The run directory of a recipe file. Raises RecipeError and UsageError.

    With `fresh`, a job that has begun already finds the directory that it began: it must not begin another each time
    it comes back.
    """
    loaded = load_recipe(recipe, list(overrides), check_files=False)
    job_id = os.environ.get("SLURM_JOB_ID")
    if place.fresh and place.run_dir is None and job_id:
        begun = RunDir.locate(loaded, runs=place.runs).path
        if any(record["job_id"] == job_id for record in read_standing(begun).records):
            return begun
    return RunDir.locate(loaded, runs=place.runs, run_dir=place.run_dir, fresh=place.fresh).path


def answer(recipe: str, overrides: Sequence[str], place: Place, when: When, exit_status: int) -> int:
    """Decide, keep the decision, print it; returns the answer's exit status. Raises RecipeError and UsageError."""
    path = located(recipe, overrides, place)
    asking = Asking.here(when, exit_status)
    now = read_standing(path)
    decision = decide(asking, now, _other(asking, now))
    if decision.verdict == "go" and asking.job_id and (problem := too_short(asking.job_id)):
        decision = Decision("failed", problem, EXIT_FAILED)
    elif decision.verdict == "go":
        try:  # what would fail in each process, said before any is started: weights or data that are not there
            startable(partial(load_recipe, recipe, list(overrides)), Place(run_dir=str(path)))
        except UserError as error:
            decision = Decision("failed", str(error), error.exit_status)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_record(path, asking, now, decision)
    except OSError as error:
        print(f"cannot write {error.filename or path / RECORDS}: {error.strerror}", file=sys.stderr)
        if decision.verdict in ("go", "requeue"):
            # Without its records a job could come back for ever.
            decision = Decision("failed", f"the decision ({decision.verdict}) cannot be kept in {path}", EXIT_FAILED)
    print(decision)
    return decision.exit_status


@dataclass(frozen=True)
class Asking:
    """A batch job before its step or after it, with the step's exit status; `restart` is Slurm's count of requeues."""

    when: When
    job_id: str | None = None
    restart: int = 0
    exit_status: int = 0

    @classmethod
    def here(cls, when: When, exit_status: int) -> Asking:
        """The job that this process runs in."""
        restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        return cls(when, os.environ.get("SLURM_JOB_ID") or None, restart, exit_status)


def _other(asking: Asking, now: Standing) -> str | None:
    """Who else lives in the directory. What is left of this job itself has ended with its step."""
    holder = now.holder
    if holder is None or now.alive is False or (holder.job_id == asking.job_id and holder.job_id is not None):
        return None
    name = f"job {holder.job_id}" if holder.job_id else str(holder.process)
    if now.alive or asking.when == "end":
        return name
    # Heard of lately, on another machine: the trainer itself waits for silence before it takes over, and a job that
    # starts after another was ended must get so far.
    job = read_queue().jobs.get(holder.job_id or "")
    return name if job is not None and not job.waits and job.state != "COMPLETING" else None


@dataclass(frozen=True)
class Decision:
    """`verdict: text` is the line for the log."""

    verdict: Verdict
    text: str
    exit_status: int

    def __str__(self) -> str:
        return f"{self.verdict}: {self.text}"


def decide(asking: Asking, now: Standing, other: str | None = None) -> Decision:
    """The rule. Before a job's step: 0 go, 3 completed already, 1 do not. After it: 0 over, 75 requeue, 1 failed.

    `other` is the name of another job or process that lives in the directory.
    """
    ends = asking.when == "end"
    if now.problem:
        return Decision("failed", now.problem, EXIT_FAILED)
    if now.state == "completed":
        return Decision("completed", "nothing is left to do", EXIT_ON if ends else EXIT_COMPLETED)
    if other:
        return Decision("busy", f"the run is in use by {other}", EXIT_FAILED)
    mine = _of_this_job(asking, now) if ends or asking.restart else []
    if ends:
        decision = _after_step(asking, now, mine)
    else:
        where = "from the beginning" if now.checkpoint_step is None else f"from step {now.checkpoint_step}"
        decision = Decision("go", where, EXIT_ON)
    if decision.verdict in ("go", "requeue") and (gained := _gained(now, mine)) is not None and gained < now.save_every:
        where = "no checkpoint" if now.checkpoint_step is None else f"checkpoint: step {now.checkpoint_step}"
        last = f"; last: {now.reason}" if now.reason else ""
        why = f"given up: {MAX_STARTS} starts together saved {max(0, gained)} steps of the {now.save_every} of a save "
        why += f"interval or an epoch ({where}){last}"
        if gained > 0:
            why += "; give the job more time (--time), or set checkpoint.every_steps to less"
        return Decision("failed", why, EXIT_FAILED)
    return decision


def _after_step(asking: Asking, now: Standing, mine: Sequence[Mapping[str, Any]]) -> Decision:
    if _has_spoken(asking, now, mine):
        if now.state == "failed":
            return Decision("failed", now.reason or "no reason is known", EXIT_FAILED)
        if now.state == "stopped" and now.reason == USERS_WISH:
            return Decision("stopped", "the user stopped it with the file STOP", EXIT_ON)
        why = "nobody is left" if now.state == "running" else f"{now.state}: {now.reason}"
        return Decision("requeue", why, EXIT_REQUEUE)
    if asking.exit_status == EXIT_USAGE:
        why = "the recipe or the call is wrong (exit status 2); see the job's log"
        return Decision("failed", why, EXIT_FAILED)
    why = f"the job's step ended with status {asking.exit_status} before training began"
    if now.state is None and asking.exit_status != EXIT_REQUEUE:
        return Decision("failed", f"{why}; see its log", EXIT_FAILED)
    return Decision("requeue", why, EXIT_REQUEUE)


def _has_spoken(asking: Asking, now: Standing, mine: Sequence[Mapping[str, Any]]) -> bool:
    """Whether status.json is from the step that ended, and not from an attempt before it."""
    ours = now.state is not None and now.holder is not None and now.holder.job_id == asking.job_id
    begun = [record.get("attempt") for record in mine if record.get("when") == "start"]
    return ours and (not begun or not isinstance(begun[-1], int) or now.attempt > begun[-1])


def _of_this_job(asking: Asking, now: Standing) -> list[Mapping[str, Any]]:
    """Decisions of this job since it was submitted; a cluster may give the number of an old job out again."""
    mine: list[Mapping[str, Any]] = []
    for record in now.records:
        if record["job_id"] == asking.job_id:
            first = record.get("when") == "start" and not record.get("restart")
            mine = [record] if first else [*mine, record]
    return mine if asking.job_id is not None else []


def _gained(now: Standing, mine: Sequence[Mapping[str, Any]]) -> int | None:
    """Steps between the checkpoint at the third start from the end and the newest one; None before three starts."""
    starts = [record for record in mine if record.get("when") == "start" and record["decision"] == "go"]
    if len(starts) < MAX_STARTS:
        return None
    begun = starts[-MAX_STARTS].get("checkpoint_step")
    return (now.checkpoint_step or 0) - (begun if isinstance(begun, int) else 0)


def write_record(path: Path, asking: Asking, now: Standing, decision: Decision) -> None:
    """Append a decision; raises OSError."""
    fields = {
        "time": round(time.time(), 3),
        **asdict(asking),
        "state": now.state,
        "attempt": now.attempt,
        "checkpoint_step": now.checkpoint_step,
        "decision": decision.verdict,
        "text": decision.text,
    }
    append_line(path / RECORDS, json.dumps(fields))
