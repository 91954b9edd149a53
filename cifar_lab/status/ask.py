"""The questions of a batch job: which directory is mine, do I start, do I come back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cifar_lab.errors import UserError
from cifar_lab.recipe import load_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.outcome import Place
from cifar_lab.status.liveness import Life, read_life
from cifar_lab.status.refusals import mended, refuse
from cifar_lab.status.requeue import EXIT_FAILED, Decision, Situation, When, decide, read_records, write_record
from cifar_lab.status.slurm_queue import read_queue
from cifar_lab.status.state import checked_status, newest_checkpoint

__all__ = ["Place", "answer", "located"]


def located(recipe: str, overrides: Sequence[str], place: Place) -> Path:
    """The run directory of a recipe file. Raises RecipeError and RunDirError.

    With `fresh`, a job that has begun already finds the directory that it began: it must not begin another each time
    it comes back.
    """
    loaded = load_recipe(recipe, list(overrides), check_files=False)
    job_id = os.environ.get("SLURM_JOB_ID")
    if place.fresh and place.run_dir is None and job_id:
        begun = RunDir.locate(loaded, runs=place.runs)
        if any(record.get("job_id") == job_id for record in read_records(begun.path)):
            return begun.path
    return RunDir.locate(loaded, runs=place.runs, run_dir=place.run_dir, fresh=place.fresh).path


def answer(recipe: str, overrides: Sequence[str], place: Place, when: When, exit_status: int) -> int:
    """Decide, keep the decision, print it; returns the exit status of the answer.

    Raises RecipeError and RunDirError; the folder of runs then keeps why, for there is no run to say it.
    """
    runs = Path(place.runs)
    try:
        path = located(recipe, overrides, place)
    except UserError as error:
        with _written():
            refuse(runs, recipe, overrides, str(error))
        raise
    with _written():
        mended(runs, recipe, overrides)
    now = situation(path, when, exit_status)
    decision = _files_missing(recipe, overrides) if when == "start" else None
    decision = decision or decide(when, now, read_records(path))
    with _written() as written:
        path.mkdir(parents=True, exist_ok=True)
        write_record(path, when, now, decision)
    if not written and decision.verdict in ("go", "requeue"):
        # Without its records a job could come back for ever.
        decision = Decision("failed", f"the decision ({decision.verdict}) cannot be kept in {path}", EXIT_FAILED)
    print(decision)
    return decision.exit_status


@contextmanager
def _written() -> Iterator[list[bool]]:
    """Say what cannot be written; the list is empty then."""
    done: list[bool] = []
    try:
        yield done
        done.append(True)
    except OSError as error:
        print(f"cannot write {error.filename or 'a decision'}: {error.strerror}", file=sys.stderr)


def _files_missing(recipe: str, overrides: Sequence[str]) -> Decision | None:
    """What would fail in each process, said before any is started: weights or data that are not there."""
    try:
        load_recipe(recipe, list(overrides))
    except UserError as error:
        return Decision("failed", str(error), error.exit_status)
    return None


def situation(path: Path, when: When, exit_status: int = 0) -> Situation:
    """What the directory says to this job."""
    job_id = os.environ.get("SLURM_JOB_ID") or None
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    try:
        status, problem = checked_status(path), None
    except (OSError, ValueError) as error:
        status, problem = None, " ".join(str(error).split())
    life = read_life(path)
    return Situation(
        job_id=job_id,
        restart=int(restart) if restart.isdecimal() else 0,
        state=status.state if status else None,
        reason=status.reason if status else None,
        checkpoint_step=newest_checkpoint(path),
        attempt=life.number,
        ours=life.holder is not None and life.holder.job_id == job_id,
        holder=_other(life, job_id, when),
        problem=problem,
        exit_status=exit_status,
    )


def _other(life: Life, job_id: str | None, when: When) -> str | None:
    """Who else lives in the directory. What is left of this job itself has ended with its step."""
    holder = life.holder
    if holder is None or life.gone or (holder.job_id == job_id and job_id is not None):
        return None
    name = f"job {holder.job_id}" if holder.job_id else str(holder.process)
    if life.alive or when == "end" or holder.job_id is None:
        return name if life.alive or when == "end" else None
    # Heard of lately, on another machine: the trainer itself waits for silence before it takes over, and a job that
    # starts after another was ended must get so far.
    job = read_queue().jobs.get(holder.job_id)
    return name if job is not None and not job.waits and job.state != "COMPLETING" else None
