"""The report in a real browser: quiet, offline, readable at a desk and on a phone, by day and by night."""

from pathlib import Path

import pytest
from browser.checks import COLLISIONS, COLOURS, CONTRAST, CUT, FONT, LINES, WIDTHS
from browser.chromium import Chromium
from support.written_runs import written, written_study

from cifar_lab.commands.report import main

pytestmark = pytest.mark.browser
SIZES = [
    pytest.param(width, dark, id=f"{width}-{'dark' if dark else 'light'}")
    for width, dark in ((1280, False), (1280, True), (1000, False), (390, False), (390, True), (320, False))
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with everything that may make a page burst: long names, a long reason, many digits, another protocol."""
    runs = tmp_path_factory.mktemp("browser") / "runs"
    written_study(runs, seeds=2, epochs=150)
    name = "a_name_that_is_longer_than_any_column_of_any_table_can_be_on_any_telephone"
    written(runs, "resnet18", error=0.2345, overrides=[f"name={name}"], count=10_000, num_parameters=304_123_456_789)
    written(
        runs,
        "resnet18",
        error=0.08,
        overrides=["optim.lr=0.05", "data.augment.cutout=8"],
        count=10_000,
        world_size=1024,
    )
    for seed in range(3):
        written(runs, "demo", seed, error=0.3 + 0.1 * seed, overrides=["data.limit=500"], epochs=3)
    reason = "step 8: the gradient of " + "blocks.0." * 30 + " is not finite"
    written(runs, "resnet18", 7).write_status("failed", 8, 100, reason=reason)
    (written(runs, "resnet18", 8).path / "summary.json").write_text("{")
    assert main([str(runs), "--out", str(runs.parent / "out")]) == 0
    return runs.parent / "out" / "report.html"


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_page_is_quiet_whole_and_readable(chromium: Chromium, report: Path, width: int, dark: bool) -> None:
    chromium.open(report.as_uri(), width=width, dark=dark)
    assert chromium.run("return document.querySelectorAll('svg.chart').length") > 11
    assert chromium.run("return [matchMedia('(prefers-color-scheme: dark)').matches, innerWidth]") == [dark, width]
    for folded in (True, False):
        chromium.run("document.querySelectorAll('details').forEach((d) => { d.open = !arguments[0]; })", folded)
        assert chromium.run("return document.documentElement.scrollWidth") <= width
        assert chromium.run(CUT) == []
        assert chromium.run(COLLISIONS) == []
        size, where = chromium.run(FONT)
        assert size >= 10, where
        assert chromium.run(COLOURS + LINES) >= 3
    for number, share in chromium.run(WIDTHS):
        assert number == 1, "for a desk or for a phone"
        assert 1.05 > share > 0.94 or width not in (1280, 390)
    heights = chromium.run(
        "return [...document.querySelectorAll('.confusion td:not(:first-child)')].map((t) => t.clientHeight)"
    )
    assert 0 < max(heights) < 30, "no number of a confusion matrix takes two lines"
    contrast, where = chromium.run(COLOURS + CONTRAST)
    assert contrast >= 4.5, where
    assert chromium.run(
        "return [...document.images].every((i) => i.complete && i.naturalWidth > 0 || i.loading === 'lazy')"
    )
    paper = chromium.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert chromium.console() == []
    assert chromium.requests() == []


def test_it_begins_with_what_came_out_and_shows_every_run_under_its_experiment(
    chromium: Chromium, report: Path
) -> None:
    chromium.open(report.as_uri(), width=390)
    headline = chromium.run("return document.querySelector('h1 + .headline').innerText")
    assert headline.startswith("11 experiments, 21 runs, in 2 tables that do not compare. In the first: vit_tiny has")
    assert headline.endswith(" Not counted: 1 diverged, 1 corrupt.")
    groups = chromium.run(
        "return [...document.querySelectorAll('.group')].filter((g) => g.open).map((g) => "
        "[g.querySelector('.grow').innerText, [...g.querySelectorAll(':scope details .grow')].map((r) => r.innerText)])"
    )
    for label, runs in groups:
        assert {run.split("/")[0] for run in runs} == {label.split(" ")[0]}
        assert len({run.split("-")[-1] for run in runs}) == 1
    shown = chromium.run(
        "return [...document.querySelectorAll('#runs details:not(.group) .grow')]"
        ".filter((r) => r.getClientRects().length).map((r) => r.innerText)"
    )
    runs = [f"{path.parent.parent.name}/{path.parent.name}" for path in report.parents[1].glob("runs/*/*/recipe.yaml")]
    assert sorted(shown) == sorted(runs)


@pytest.mark.parametrize("name", ["ranking", "vits-loss"])
def test_svg_files_open_by_themselves(chromium: Chromium, report: Path, name: str) -> None:
    for dark in (False, True):
        chromium.open((report.parent / "plots" / f"{name}.svg").as_uri(), width=800, dark=dark)
        assert chromium.run(COLLISIONS.replace("frame.width / chart.viewBox.baseVal.width", "1.5")) == []
        fill = chromium.run("return getComputedStyle(document.querySelector('.paper')).fill")
        assert fill == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
        assert chromium.console() == []
        assert chromium.requests() == []


def test_the_checks_see_what_is_wrong(chromium: Chromium, report: Path) -> None:
    chromium.open(report.as_uri(), width=390)
    chromium.run("document.querySelector('.phone svg.chart text').setAttribute('x', '400')")
    assert chromium.run(COLLISIONS)
    chromium.run("document.querySelector('h1').style.cssText = 'width: 600px; color: #999'")
    assert chromium.run(CUT)
    assert chromium.run(COLOURS + CONTRAST)[0] < 4.5
    chromium.run("document.querySelector('.phone svg.chart .title').style.fontSize = '9px'")
    assert chromium.run(FONT)[0] < 10
    chromium.run("document.querySelector('.phone .curve').style.stroke = '#eee'")
    assert chromium.run(COLOURS + LINES) < 3
    chromium.run("document.querySelector('section > figure .phone').style.cssText = 'min-width: 0; width: 50%'")
    assert chromium.run(WIDTHS)[0][1] < 0.94
    chromium.run("fetch('http://localhost:1/').catch(() => 0); return 1")
    assert "Content Security Policy" in " ".join(chromium.console())
