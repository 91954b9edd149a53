"""When a checkpoint gets its name, and when it must not."""

import os
from pathlib import Path

import pytest
from support.runs import opened
from support.small import small

from cifar_lab.checkpoint import files
from cifar_lab.errors import UserError

RECIPE = small(data__val_size=0)


def test_an_attempt_that_is_taken_over_while_it_writes_commits_nothing(tmp_path):
    session = opened(RECIPE, tmp_path / "run")
    session.saver.save(session.state)
    session.saver.wait()
    first = files.list_checkpoints(session.run_dir.checkpoints)
    assert len(first) == 1
    before = first[0].stat().st_ino
    (tmp_path / "run" / ".attempt-2").touch()  # another start
    session.saver.save(session.state)
    with pytest.raises(UserError, match="was taken over"):
        session.saver.wait()
    session.close()
    assert files.list_checkpoints(session.run_dir.checkpoints) == first
    assert first[0].stat().st_ino == before, "the other attempt may have resumed from it"


def test_what_a_checkpoint_holds_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A crash of the machine leaves a whole checkpoint under that name, or none."""
    done: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def renamed(old: Path, new: Path) -> None:
        replace(old, new)
        done.append(("rename", Path(new)))

    session = opened(RECIPE, tmp_path / "run")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    session.saver.save(session.state)
    session.saver.wait()
    session.close()
    folder = session.run_dir.checkpoints
    partial, final = folder / "step_00000000.partial", folder / "step_00000000"
    named = done.index(("rename", final))
    manifest = done.index(("rename", partial / files.MANIFEST_FILE))
    assert manifest < done.index(("sync", partial), manifest) < named < done.index(("sync", folder), named)
    written = {path.name for what, path in done[:manifest] if what == "sync" and path.parent == partial}
    names = {path.name for path in final.iterdir()} - {files.MANIFEST_FILE}
    assert names and names <= written
