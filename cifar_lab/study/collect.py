"""What is kept of a study for good: the small files of its completed runs, never weights or pictures."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from cifar_lab.cli.printable import shown
from cifar_lab.status.state import read_run
from cifar_lab.study.members import Member
from cifar_lab.study.sizing import StudyError

# A list of what may be taken: whatever a run leaves besides stays out, such as mistakes.png and model.safetensors.
KEPT = ("recipe.yaml", "env.json", "status.json", "metrics.jsonl", "summary.json", "model.json", "predictions.npz")
MAX_BYTES = 2 * 2**20


def collect(members: Sequence[Member], to: Path) -> tuple[list[Path], list[Member]]:
    """Copy the completed runs below `to`; returns their new directories, and the runs that have no result yet.

    A file of more than MAX_BYTES stays out. Raises StudyError where nothing is completed, or `to` cannot be written.
    """
    done = [member for member in members if read_run(member.path).effective_state == "completed"]
    if not done:
        raise StudyError("no run of this study is completed yet; train first, or name their place with --runs DIR")
    targets = [to / member.name / member.path.name for member in done]
    if targets[0].absolute() == done[0].path:
        raise StudyError(f"{shown(to)} is where the runs are; collect into another folder")
    for member, target in zip(done, targets, strict=True):
        for name in KEPT:
            source = member.path / name
            if source.is_file() and source.stat().st_size <= MAX_BYTES:
                try:
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target / name)
                except OSError as error:
                    raise StudyError(f"cannot write {shown(target)}: {error.strerror}") from error
    return targets, [member for member in members if member not in done]
