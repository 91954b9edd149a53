"""docs/own_data.md: from 300 pictures as people have them to an exported network, by the page's own commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.own_pictures import KINDS, draw_folder, write_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own_data.md").read_text()
CHANCE = 1 - 1 / len(KINDS)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the page's commands were run, in their order, and what they printed."""
    import datasets

    folder = tmp_path_factory.mktemp("own")
    draw_folder(folder / "pictures")
    write_table(folder / "pictures", folder / "pictures.csv")
    for kind in list(KINDS)[:2]:
        (folder / "new" / kind).mkdir(parents=True)
        for path in sorted((folder / "pictures" / kind).glob("0*"))[:3]:
            shutil.copy(path, folder / "new" / kind)
    rows = datasets.load_dataset("csv", data_files=str(folder / "pictures.csv"), cache_dir=str(folder / "hf"))["train"]
    rows = rows.map(lambda row: {"file": str(folder / row["file"])}).cast_column("file", datasets.Image())
    rows.class_encode_column("kind").train_test_split(0.2, seed=0).save_to_disk(str(folder / "OWNER" / "NAME"))
    recipes = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(recipes) == 1
    (folder / "mine.yaml").write_text(recipes[0])
    commands = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL))
    assert commands.count("cifar-lab ") == 9
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def _run(folder: Path, name: str) -> Path:
    [run] = (folder / "runs" / name).iterdir()
    return run


def test_what_is_not_a_picture_is_counted_and_what_is_broken_is_named(played: tuple[Path, str]) -> None:
    _, said = played
    assert "5 passed over, hidden or without pictures" in said
    assert "2 of 302 pictures are broken (1 of lemon, 1 of lime): " in said
    assert "half.jpg" in said and "empty.png" in said
    assert "216 training, 24 held-out, 60 test pictures" in said


@pytest.mark.parametrize("name", ["mine", "table", "hub"])
def test_each_kind_of_data_is_learnt(played: tuple[Path, str], name: str) -> None:
    folder, _ = played
    summary = json.loads((_run(folder, name) / "summary.json").read_text())
    assert summary["test"]["count"] == 60
    assert 1 - summary["test"]["accuracy"] < CHANCE - 0.15


def test_a_turned_picture_is_seen_upright(played: tuple[Path, str]) -> None:
    """Trained on and predicted as Pillow turns it: the table's pictures are the folder's."""
    folder, _ = played
    by_folder, by_table = (json.loads((_run(folder, name) / "model.json").read_text()) for name in ("mine", "table"))
    assert by_folder["mean"] == pytest.approx(by_table["mean"], abs=0.02)


def test_another_set_and_the_exported_network(played: tuple[Path, str]) -> None:
    folder, said = played
    assert "new has no pictures of plum" in said
    assert (folder / "fruit" / "model.onnx").is_file()
    assert "new" in (folder / "runs" / "report" / "report.html").read_text()
