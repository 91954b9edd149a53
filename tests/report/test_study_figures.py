"""Which experiments are drawn in which figures, under which titles and captions."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.written_runs import STUDY_ERRORS, written, written_study

from cifar_lab.report.contents import Section, contents
from cifar_lab.report.figure import Figure
from cifar_lab.report.read import read_run
from cifar_lab.report.study import validation_error
from cifar_lab.report.svg import draw
from cifar_lab.rundir.placement import find_runs

TEN = [
    f"{name}-{kind}"
    for name in ("plain18-plain34", "resnet18-resnet34", "resnet18_ms", "vit_tiny", "vits")
    for kind in ("loss", "error")
]


def sections(runs: Path) -> list[Section]:
    return contents([read_run(path) for path in find_runs([runs])]).sections


def test_the_ten_figures(tmp_path: Path) -> None:
    written_study(tmp_path, seeds=2)
    (section,) = sections(tmp_path)
    figures, missing = section.figures, section.missing
    assert [figure.name for figure in figures] == TEN
    assert missing == []
    assert figures[-1].title == "The three ViTs: validation error"
    loss, error = figures[:2]
    assert [line.name for line in loss.lines] == [
        f"{net}, {split}" for net in ("Plain18", "Plain34") for split in ("training", "validation")
    ]
    assert [line.dashed for line in loss.lines] == [True, False, True, False]
    assert [line.look for line in loss.lines] == [0, 0, 1, 1]
    assert [re.sub(", last .*", "", line.label) for line in error.lines] == ["Plain18", "Plain34"]
    for line in [*loss.lines, *error.lines]:
        assert len(line.x) == 10
        assert (line.low <= line.y).all()
        assert (line.y <= line.high).all()
        assert (line.low < line.high).any(), "two seeds make a band"
    assert error.lines[1].y[-1] == pytest.approx(100 * STUDY_ERRORS["plain34"], abs=2.0)
    assert "Mean of 2 seeds" in error.caption


def test_figures_without_runs_are_named_and_not_drawn(tmp_path: Path) -> None:
    for name in ("plain18", "vit_custom"):
        written(tmp_path, name)
    (section,) = sections(tmp_path)
    assert [figure.name for figure in section.figures] == [*TEN[:2], *TEN[-2:]]
    assert section.missing == [
        "Plain18 and Plain34: drawn without plain34, no completed run of plain34",
        "ResNet18 and ResNet34: no completed run of resnet18, resnet34",
        "ResNet18-MS: no completed run of resnet18_ms",
        "Pretrained ViT: no completed run of vit_tiny",
        "The three ViTs: drawn without vit_tiny, vit_tiny_scratch, no completed run of vit_tiny, vit_tiny_scratch",
    ]
    assert [figure.title for figure in section.figures[1::2]] == [
        "Plain18: validation error",
        "Custom ViT: validation error",
    ]
    assert "One seed." in section.figures[0].caption


def test_other_runs_get_a_figure_of_the_best(tmp_path: Path) -> None:
    for i in range(8):
        written(tmp_path, "demo", error=0.1 + 0.05 * i, overrides=[f"name=demo{i}"])
    (section,) = sections(tmp_path)
    assert [figure.title for figure in section.figures] == [
        "The best, 6 of 8: loss",
        "The best, 6 of 8: validation error",
    ]
    assert len({line.look for line in section.figures[1].lines}) == 6
    assert "2 more experiments are not drawn" in section.figures[1].caption
    assert section.missing == []


def last_errors(figure: Figure) -> dict[str, float]:
    return {re.sub(", last .*", "", line.name): round(float(line.y[-1])) for line in figure.lines}


def test_a_figure_draws_every_experiment_that_its_title_names(tmp_path: Path) -> None:
    written(tmp_path, "resnet18", error=0.30, overrides=["optim.lr=0.1"])
    written(tmp_path, "resnet18", error=0.20, overrides=["optim.lr=0.05"])
    (section,) = sections(tmp_path)
    loss, error = section.figures
    assert (loss.title, error.title) == ("ResNet18: loss", "ResNet18: validation error")
    assert last_errors(error) == {"ResNet18 (optim.lr=0.1)": 31, "ResNet18 (optim.lr=0.05)": 21}
    assert len(loss.lines) == 4
    assert section.missing[1].startswith("ResNet18 and ResNet34: drawn without resnet34")
    assert "not drawn" not in error.caption


def test_experiments_of_no_part_are_drawn_together(tmp_path: Path) -> None:
    for name in ("plain18", "plain34"):
        written(tmp_path, name)
    for rate in (0.1, 0.2):
        written(tmp_path, "demo", overrides=[f"optim.lr={rate}"])
    (section,) = sections(tmp_path)
    assert [figure.title for figure in section.figures[::2]] == ["Plain18 and Plain34: loss", "All others: loss"]
    assert len(section.figures[-1].lines) == 2


def test_of_too_many_each_part_is_drawn_and_the_others_counted(tmp_path: Path) -> None:
    for seed in range(2):
        for rate in range(8):
            written(tmp_path, "plain18", seed, error=0.1 + 0.1 * rate, overrides=[f"optim.lr={rate + 1}"])
    # The claims compare what differs least, though it has fewer seeds and the highest error.
    written(tmp_path, "plain34", overrides=["optim.lr=20"])
    written(tmp_path, "plain18", error=0.95, overrides=["optim.lr=20"])
    (section,) = sections(tmp_path)
    error = section.figures[1]
    assert error.title == "Plain18 and Plain34, 6 of 10: validation error"
    assert [*last_errors(error)][:2] == ["Plain18 (optim.lr=20.0)", "Plain34"]
    assert len(error.lines) == 6
    assert "Mean of 1, 1, 2, 2, 2 and 2 seeds" in error.caption
    assert "4 more experiments are not drawn" in error.caption
    drawn = ElementTree.fromstring(draw(section.figures[0]))
    assert [text.text for text in drawn.findall("text[@class='name']")] == [*last_errors(error)], "one entry each"
    _, top, _, bottom = map(float, (drawn.get("data-box") or "").split())
    assert bottom - top > 190, "the legend takes nothing from the plot"


def test_what_was_not_logged_is_named(tmp_path: Path) -> None:
    for name in ("plain18", "plain34"):
        for seed in range(2):
            metrics = written(tmp_path, name, seed).path / "metrics.jsonl"
            if name == "plain34" or seed == 1:
                kept = [line for line in metrics.read_text().splitlines() if '"val"' not in line]
                metrics.write_text("\n".join([*kept, ""]))
    loss, error = sections(tmp_path)[0].figures
    assert "Not drawn for want of values: Plain34, validation." in loss.caption
    assert "Not drawn for want of values: Plain34, last " in error.caption
    assert error.caption.startswith("One seed."), "one of the two has no validation"


def test_long_curves_are_thinned_to_points_of_the_mean_over_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        written(tmp_path, "demo", seed, epochs=800)
    (section,) = sections(tmp_path)
    (line,) = section.figures[1].lines
    values = np.stack([validation_error(run)[1] for run in section.ranked[0].experiment.runs])
    at = line.x.astype(int) - 1
    assert 100 < len(at) < 400
    for drawn, exact in zip((line.y, line.low, line.high), (values.mean(0), values.min(0), values.max(0)), strict=True):
        np.testing.assert_allclose(drawn, exact[at], rtol=1e-12)
        assert (drawn.min(), drawn.max()) == pytest.approx((exact.min(), exact.max()), rel=1e-12), "no peak is lost"
