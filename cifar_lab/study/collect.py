"""What is kept of a study for good: the small files of its completed runs, never weights or pictures."""

import shutil
from pathlib import Path

from cifar_lab.cli.printable import shown
from cifar_lab.errors import UsageError
from cifar_lab.status.state import RunState, read_run
from cifar_lab.study.members import Member

# A list of what may be taken: whatever a run leaves besides stays out, such as mistakes.png and model.safetensors.
# The last one says that the run is completed, so it comes when all else is there.
KEPT = ("recipe.yaml", "env.json", "metrics.jsonl", "summary.json", "model.json", "predictions.npz", "status.json")
MAX_BYTES = 2 * 2**20


def state_of(member: Member, kept: Path | None) -> RunState:
    """Where a run stands: completed and kept below `kept`, or else where it trains."""
    if kept is not None:
        state = read_run(kept_path(member, kept))
        if state.effective_state == "completed":
            return state
    return read_run(member.path)


def keep(member: Member, to: Path) -> None:
    """Copy what is kept of a completed run below `to`. A file of more than MAX_BYTES stays out.

    Raises UsageError where `to` cannot be written.
    """
    target = kept_path(member, to)
    for name in KEPT:
        source = member.path / name
        if source.is_file() and source.stat().st_size <= MAX_BYTES:
            try:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target / name)
            except OSError as error:
                raise UsageError(f"cannot write {shown(target)}: {error.strerror}") from error


def kept_path(member: Member, to: Path) -> Path:
    """Where `keep` puts a run."""
    return to / member.name / member.path.name
