"""Batch jobs without a run directory: `refused.jsonl` in the folder of runs says why, until the recipe is mended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar_lab.files.jsonl import append_line, last_objects

FILE = "refused.jsonl"


@dataclass(frozen=True)
class Refusal:
    """A recipe that a job could not use; `time` in Unix seconds, `text` what to mend."""

    recipe: str
    overrides: list[str]
    job_id: str | None
    time: float
    text: str


def refuse(runs: Path, recipe: str, overrides: Sequence[str], text: str) -> None:
    """Keep why this job ends; raises OSError."""
    runs.mkdir(parents=True, exist_ok=True)
    _append(runs, recipe, overrides, text)


def mended(runs: Path, recipe: str, overrides: Sequence[str]) -> None:
    """Take back what was said of this recipe, if anything was; raises OSError."""
    if any((r.recipe, r.overrides) == (os.path.abspath(recipe), list(overrides)) for r in read_refusals(runs)):
        _append(runs, recipe, overrides, None)


def read_refusals(runs: Path) -> list[Refusal]:
    """The last refusal of each recipe with its overrides that was not mended since."""
    found: dict[tuple[str, ...], Refusal | None] = {}
    for line in last_objects(runs / FILE):
        match line:
            case {
                "recipe": str(recipe),
                "overrides": [*overrides],
                "job_id": str() | None as job_id,
                "time": int() | float() as when,
                "text": str() | None as text,
            }:
                words = [str(word) for word in overrides]
                found[(recipe, *words)] = None if text is None else Refusal(recipe, words, job_id, when, text)
    return [refusal for refusal in found.values() if refusal is not None]


def _append(runs: Path, recipe: str, overrides: Sequence[str], text: str | None) -> None:
    fields = {
        "time": round(time.time(), 3),
        "job_id": os.environ.get("SLURM_JOB_ID") or None,
        "recipe": os.path.abspath(recipe),
        "overrides": list(overrides),
        "text": text,
    }
    append_line(runs / FILE, json.dumps(fields))
