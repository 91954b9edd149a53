"""What may happen to a run: damage, a full disk, signals at bad moments, a second start. Nothing is lost."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.damage import cut, empty, flip, rewrite
from support.runs import train
from support.small import small

from cifar_lab.checkpoint import files as checkpoint_files
from cifar_lab.checkpoint import saver as checkpoint
from cifar_lab.rundir.directory import RunDir

RECIPE = small(
    train__epochs=None, train__steps=6, optim__warmup_epochs=0.0, checkpoint__every_steps=3, data__val_size=0
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The folder of two whole checkpoints, of steps 3 and 6."""
    return train({**RECIPE, "train": {**RECIPE["train"], "ema_decay": 0.9}}, tmp_path_factory.mktemp("c") / "run")


@pytest.mark.parametrize("damage", [cut, flip, empty, os.unlink])
def test_any_damaged_file_means_the_checkpoint_before(checkpoints, tmp_path, caplog, damage):
    newest = checkpoint_files.list_checkpoints(checkpoints.run_dir.checkpoints)[-1]
    names = sorted(os.listdir(newest))
    assert len(names) == 5
    for name in names:
        folder = tmp_path / name
        shutil.copytree(checkpoints.run_dir.checkpoints, folder)
        damage(folder / newest.name / name)
        caplog.clear()
        found = checkpoint.newest(folder)
        assert found is not None
        assert found[1].step == 3
        assert f"skipping checkpoint {newest.name}" in caplog.text
        # A damaged manifest may speak of another file: its entry is what was hit.
        assert name in caplog.text or name == "manifest.json"


def test_a_pickle_is_refused_even_with_the_right_checksum(checkpoints, tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints.run_dir.checkpoints, folder)
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (marker.write_text, ("",))

    rewrite(folder / "step_00000006" / "weights-00000-of-00001.safetensors", pickle.dumps(Evil()))
    assert checkpoint.newest(folder)[1].step == 3
    assert "weights-00000-of-00001.safetensors: not a safetensors file" in caplog.text
    assert not marker.exists()


def start(recipe, folder, *extra):
    """Start a real training process on a recipe mapping."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "cifar_lab.train", str(path), "--run-dir", str(folder / "run"), *extra]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_until(condition, process, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def phase(folder):
    try:
        return json.loads((folder / "run" / "heartbeat" / "0.json").read_text())["phase"]
    except (OSError, ValueError):
        return None


LONG = small(
    data__args={"num_train": 4000, "num_test": 60, "image_size": 16},
    data__val_size=2000,
    train__epochs=30,
    eval__batch=1,
    eval__every_epochs=0.1,
    checkpoint__every_steps=5,
)
MOMENTS = {
    "evaluation": lambda folder: phase(folder) == "validation",
    "save": lambda folder: any((folder / "run" / "checkpoints").glob("*.partial")),
}


@pytest.mark.launch
def test_signals_during_evaluation_and_saving_and_twice(tmp_path):
    for moment, times in (("evaluation", 1), ("save", 1), ("evaluation", 2)):
        process = start(LONG, tmp_path)
        wait_until(lambda: MOMENTS[moment](tmp_path), process)  # noqa: B023
        for _ in range(times):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 75, errors
        run = RunDir(tmp_path / "run")
        assert (run.status().state, run.status().reason) == ("stopped", "SIGTERM")
        newest = checkpoint_files.list_checkpoints(run.checkpoints)[-1]
        assert checkpoint_files.verify(newest) == []
        assert checkpoint_files.read_state(newest)["step"] == run.status().step
        steps = [line["step"] for line in run.metrics() if line["split"] == "train"]
        assert steps == list(range(1, run.status().step + 1))


@pytest.mark.launch
def test_a_second_start_is_refused_and_changes_nothing(tmp_path):
    first = start(LONG, tmp_path)
    wait_until(lambda: phase(tmp_path) in ("train", "validation"), first)
    second = start(LONG, tmp_path)
    output, errors = second.communicate(timeout=180)
    assert second.returncode == 1
    assert f"process {first.pid}" in errors
    assert "Traceback" not in errors
    assert not output
    (tmp_path / "run" / "STOP").touch()
    _, errors = first.communicate(timeout=180)
    assert first.returncode == 75, errors
    run = RunDir(tmp_path / "run")
    assert (run.status().reason, run.status().attempt) == ("STOP", 1)
    assert not (run.path / "STOP").exists()


@pytest.mark.launch
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")
def test_a_full_disk_keeps_the_first_checkpoint(tmp_path):
    disk = tmp_path / "run"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine cannot mount a tmpfs")
    try:
        # About 4.5 MB of weights and moments: one checkpoint fits, a second does not.
        wide = {"width": 96, "depth": 4, "heads": 2, "patch_size": 4}
        process = start(small(model__args=wide, checkpoint__every_steps=5), tmp_path)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "Traceback" not in errors
        assert "a checkpoint needs" in errors or "No space left on device" in errors
        kept = checkpoint_files.list_checkpoints(disk / "checkpoints")
        assert [path.name for path in kept] == ["step_00000005"]
        assert checkpoint_files.verify(kept[0]) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_running_out_of_space_in_the_middle_of_a_write(tmp_path, monkeypatch):
    """The check before a write cannot see what others take meanwhile."""
    session = train(RECIPE, tmp_path / "run")
    whole = checkpoint_files.list_checkpoints(session.run_dir.checkpoints)
    write = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    saver = checkpoint.Saver(session.run_dir.checkpoints, session.engine, 2)
    saver.save(session.state)
    with pytest.raises(checkpoint_files.CheckpointError, match="No space left on device"):
        saver.wait()
    monkeypatch.setattr(os, "fsync", write)
    assert [checkpoint_files.verify(path) for path in whole] == [[], []]
    assert checkpoint.newest(session.run_dir.checkpoints)[1].step == 6
    assert not list(Path(session.run_dir.checkpoints).glob("*.partial"))
