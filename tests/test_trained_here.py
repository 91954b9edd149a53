"""The README's picture: what the script makes of the committed numbers, which are those that the docs tell."""

from __future__ import annotations

import csv
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from cifar_lab.models.size import model_size
from cifar_lab.planning.speed import PASSES
from cifar_lab.recipe import load_recipe
from cifar_lab.recipe.schedule import Schedule
from cifar_lab.report.svg import text_width

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PICTURE = ROOT / "results", ROOT / "docs" / "trained_here.svg"

_spec = importlib.util.spec_from_file_location("strong", ROOT / "benchmarks" / "strong.py")
assert _spec is not None and _spec.loader is not None
strong = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(strong)


def rows() -> list[dict[str, str]]:
    with (RESULTS / "trained_here.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def drawn(results: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "trained_here"), "--results", str(results), "--out", str(out)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def test_picture_is_that_of_the_committed_numbers(tmp_path: Path) -> None:
    done = drawn(RESULTS, tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text() == PICTURE.read_text(), "run scripts/trained_here"
    assert done.stderr == ""  # each name found room


def test_a_new_study_is_drawn_too(tmp_path: Path) -> None:
    shutil.copy(RESULTS / "trained_here.csv", tmp_path)
    for seed in ("0-c7f36d16", "1-c7f36d16"):
        shutil.copytree(RESULTS / "cpu_study" / "resnet18" / seed, tmp_path / "other_study" / "resnet18" / seed)
    drawn(tmp_path, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert "study, other scale" in text and "study, cpu scale" not in text
    # 62.09 and 64.05 % in 81.7 and 87.3 s; three times 70,093,312 FLOP for 780 steps of 128.
    assert "resnet18: 63.07 % after 84.48 seconds" in text
    assert "resnet18: 63.07 % after 0.02099 PFLOP" in text


def test_names_touch_no_mark_and_no_other_name() -> None:
    for half in PICTURE.read_text().split('<svg class="chart"')[2:]:
        names = []
        for at_x, at_y, name in re.findall(r'font-size="11" x="([\d.]+)" y="([\d.]+)">([^<]+)<', half):
            names.append((float(at_x), float(at_x) + text_width(name, 11), float(at_y) - 9, float(at_y) + 2))
        assert len(names) >= 11
        found = re.findall(r'<path class="f\d" d="M([\d.]+) ([\d.]+)m', half)
        marks = [(float(x), float(x), float(y), float(y)) for x, y in found]
        assert len(marks) == len(names)
        for i, (left, right, top, bottom) in enumerate(names):
            for other in [*names[:i], *marks]:
                assert right < other[0] or other[1] < left or bottom < other[2] or other[3] < top


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['name']}, seed {row['seed']}, {row['date']}")
def test_numbers_are_those_of_their_source(row: dict[str, str]) -> None:
    text = (ROOT / row["source"]).read_text()
    assert re.search(rf"(?<![\d.]){re.escape(row['test accuracy'])}(?!\d)", text)
    overrides: list[str] = []
    recipe = ROOT / row["recipe"]
    kind, _, pair = row["name"].partition(" ")
    if kind in ("strong", "twin"):
        path, overrides = strong.overrides_of(pair, kind, int(row["seed"]), [])
        assert path == recipe
        overrides = [word for word in overrides if not word.startswith("model.weights=")]
    found = load_recipe(recipe, overrides)
    pictures = min(50_000 - (found.data.val_size or 0), found.data.limit or 50_000)
    assert row["pictures"].startswith(f"{pictures:,} ")
    steps = Schedule.make(found, pictures, 1).total_steps
    flop = model_size(found.model, 10, found.data.image_size or 32).flops_per_image
    pflop = PASSES * flop * steps * found.train.global_batch / 1e15
    assert float(row["PFLOP"]) == pytest.approx(pflop, rel=5e-4)


def test_mean_of_the_speed_run() -> None:
    accuracies = [float(row["test accuracy"]) for row in rows() if row["name"] == "speed run"]
    assert len(accuracies) == 3
    for document in ("README.md", "docs/performance.md", "recipes/speedrun94.yaml"):
        assert f"{fmean(accuracies):.2f} %" in (ROOT / document).read_text()
