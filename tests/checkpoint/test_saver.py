"""When a checkpoint gets its name, and when it must not."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.runs import opened
from support.small import small

from cifar_lab.checkpoint import files
from cifar_lab.checkpoint import saver as checkpoint
from cifar_lab.checkpoint.files import CheckpointError
from cifar_lab.checkpoint.saver import Saver
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
    fsync, move, remove = os.fsync, os.replace, shutil.rmtree

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def renamed(old: Path, new: Path) -> None:
        move(old, new)
        done.append(("rename", Path(new)))

    def removed(path: Path, **how: bool) -> None:
        remove(path, **how)
        done.append(("remove", Path(path)))

    session = opened(RECIPE, tmp_path / "run")
    folder = session.run_dir.checkpoints
    saver = Saver(folder, session.engine, keep_last=1)
    saver.save(session.state)
    saver.wait()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    saver.save(replace(session.state, step=1))
    saver.wait()
    for one in (saver, session):
        one.close()
    partial, final = folder / "step_00000001.partial", folder / "step_00000001"
    manifest = partial / files.MANIFEST_FILE
    order = [("rename", manifest), ("sync", partial), ("rename", final), ("sync", folder)]
    order.append(("remove", folder / "step_00000000"))  # not before the new one is there for good
    place = -1
    for event in order:
        place = done.index(event, place + 1)
    written = {path.name for what, path in done[: done.index(order[0])] if what == "sync" and path.parent == partial}
    assert any(name.endswith(files.MANIFEST_FILE) for name in written), "under its temporary name"
    names = {path.name for path in final.iterdir()} - {files.MANIFEST_FILE}
    assert names and names <= written


@pytest.fixture
def session(tmp_path):
    session = opened(RECIPE, tmp_path / "run")
    yield session
    session.close()


def saved(saver, state):
    saver.save(state)
    saver.wait()
    return files.list_checkpoints(saver.folder)


def test_a_step_that_is_saved_again_is_replaced_and_leftovers_are_not_taken_over(session):
    leftover = session.run_dir.checkpoints / "step_00000000.partial"
    leftover.mkdir(parents=True)
    (leftover / "weights-of-another-model").touch()
    for seconds in (1.0, 2.0):
        (found,) = saved(session.saver, replace(session.state, seconds=seconds))
        assert files.read_state(found)["seconds"] == seconds
        assert files.verify(found) == []
        assert not leftover.exists()


def test_no_room_is_said_before_anything_is_written(session, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(
        CheckpointError, match=r"a checkpoint needs .* MiB free: free some space or choose another --runs"
    ):
        session.saver.save(session.state)
    assert list(session.run_dir.checkpoints.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_message(session, monkeypatch):
    session.saver.folder = session.run_dir.path / "recipe.yaml" / "checkpoints"
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint into .*: Not a directory"):
        session.saver.save(session.state)


def test_what_was_damaged_before_it_got_its_name_pushes_no_other_out(session):
    saved(session.saver, session.state)

    def damage():
        (partial,) = session.run_dir.checkpoints.glob("*.partial")
        os.truncate(next(partial.glob("optimizer-*")), 5)

    saver = Saver(session.run_dir.checkpoints, session.engine, 1, damage)
    with pytest.raises(CheckpointError, match=r"was written but does not verify .*; older ones are kept"):
        saved(saver, replace(session.state, step=1))
    saver.close()
    assert checkpoint.newest(session.run_dir.checkpoints)[1].step == 0


def test_a_checkpoint_of_another_model_is_refused(session, tmp_path):
    (found,) = saved(session.saver, session.state)
    other = opened(small(data__val_size=0, model__args={"width": 48, "depth": 2, "heads": 2}), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"does not hold this model: .* missing or of another shape"):
        checkpoint.load(found, other.engine, session.state)
    other.close()
