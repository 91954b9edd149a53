"""What a pointer is told of a single point: its run, its epoch and its value."""

from pathlib import Path

import pytest
from browser.chromium import Chromium
from PIL import Image
from support.written_runs import written

from cifar_lab.commands.report import main

pytestmark = pytest.mark.browser
# Brings a point of the first line into view; returns whether it answers there, and what.
TOUCHED = """
const points = [...document.querySelectorAll(arguments[0] + " .values path")];
const point = points.filter((one) => one.getClientRects().length)[5];
point.scrollIntoView({block: "center"});
const box = point.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;
const there = document.elementFromPoint(x, y);
return [there === point, there.textContent];
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, whose runs have large sheets of mistakes."""
    runs = tmp_path_factory.mktemp("points") / "runs"
    for seed, error in enumerate((0.2, 0.6)):
        run = written(runs, "demo", seed, error=error)
        Image.new("RGB", (968, 300), "white").save(run.path / "mistakes.png")
    assert main([str(runs), "--out", str(runs.parent / "out")]) == 0
    return runs.parent / "out"


def test_a_file_of_plots_tells_the_value_of_a_point(chromium: Chromium, report: Path) -> None:
    chromium.open((report / "plots" / "all-error.svg").as_uri(), width=800)
    touched, told = chromium.run(TOUCHED, "svg")
    assert touched, "a point can be touched"
    assert told.startswith("demo/0-")
    assert ", epoch 6: " in told


@pytest.mark.parametrize("width", [1280, 390])
def test_so_does_the_page(chromium: Chromium, report: Path, width: int) -> None:
    chromium.open((report / "report.html").as_uri(), width=width)
    touched, told = chromium.run(TOUCHED, "#figures")
    assert touched
    assert told.startswith("training, demo/0-" if width > 1000 else "training, mean of 2 seeds")
    assert ", epoch 5.625: " in told, "the training loss of an epoch lies at the mean of its lines"
    assert chromium.console() == []


def test_sheets_keep_their_size_on_a_phone(chromium: Chromium, report: Path) -> None:
    chromium.open((report / "report.html").as_uri(), width=390)
    chromium.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    sizes = chromium.run(
        "const images = [...document.images]; images.forEach((i) => { i.loading = 'eager'; });"
        "return Promise.all(images.map((i) => i.decode())).then(() =>"
        " images.map((i) => [i.getBoundingClientRect().width, i.closest('.scroll').clientWidth]))"
    )
    assert [width for width, _ in sizes] == [970, 970], "as large as they are, with a border"
    assert max(room for _, room in sizes) < 390
    assert chromium.run("return document.documentElement.scrollWidth") == 390
