"""How many checkpoints are kept, and which."""

from pathlib import Path

import pytest
from support.small import small

from cifar_lab.checkpoint import saver as checkpoint
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import run


def names(run_dir: RunDir) -> list[str]:
    return sorted(path.name for path in run_dir.checkpoints.iterdir())


def test_damaged_ones_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those past the one that training went on from: they must not push whole ones out."""
    length = {"train__epochs": None, "train__steps": 12}
    recipe = small(**length, checkpoint={"every_steps": 2, "keep_last": 3})
    run_dir = run(recipe, run_dir=str(tmp_path / "run")).run_dir
    assert names(run_dir) == ["step_00000008", "step_00000010", "step_00000012"]
    for name in names(run_dir)[1:]:
        for file in (run_dir.checkpoints / name).glob("weights-*"):
            file.write_bytes(b"damaged")
    run_dir.write_status("running", 12, 12)
    (run_dir.path / "summary.json").unlink()
    removed: list[str] = []
    remove = checkpoint.shutil.rmtree

    def recorded(path: Path, **how: bool) -> None:
        removed.append(Path(path).name)
        remove(path, **how)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", recorded)
    again = small(**length, checkpoint={"every_steps": 1, "keep_last": 2})
    assert run(again, run_dir=str(run_dir.path)).completed
    removed = [name for name in removed if name.startswith("step_") and "." not in name]
    assert sorted(removed[:2]) == ["step_00000010", "step_00000012"]
    assert removed[2:] == ["step_00000008", "step_00000009", "step_00000010"]
    assert names(run_dir) == ["step_00000011", "step_00000012"]
