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
    figures = section.figures
    assert [figure.name for figure in figures] == TEN
    assert section.missing == ""
    assert figures[-1].title == "The three ViTs: validation error"
    loss, error = figures[:2]
    means = [line for line in loss.lines if not line.faint]
    assert [line.name for line in means] == [
        f"{net}, {split}" for net in ("Plain18", "Plain34") for split in ("training", "validation")
    ]
    assert [line.dashed for line in means] == [True, False, True, False]
    assert [line.look for line in means] == [0, 0, 1, 1]
    assert [re.sub(", last .*", "", line.label) for line in error.lines] == ["Plain18"] * 3 + ["Plain34"] * 3
    assert [line.faint for line in error.lines] == [True, True, False] * 2
    for one, two, mean in (error.lines[:3], error.lines[3:], loss.lines[:3]):
        assert [line.source.split("/")[-1][:2] for line in (one, two, mean)] == ["0-", "1-", "me"]
        assert mean.source == "mean of 2 seeds"
        assert len(mean.x) == 10
        np.testing.assert_allclose(mean.y, (one.y + two.y) / 2)
    assert error.lines[-1].y[-1] == pytest.approx(100 * STUDY_ERRORS["plain34"], abs=2.0)
    assert "Thin lines are seeds, thick ones the mean of 2," in error.caption


def test_what_has_no_runs_is_not_drawn_and_told_in_one_sentence(tmp_path: Path) -> None:
    for name in ("plain18", "resnet18", "demo"):
        written(tmp_path, name)
    (section,) = sections(tmp_path)
    assert [figure.title for figure in section.figures] == [
        "All experiments: loss",
        "All experiments: validation error",
    ]
    assert [*last_errors(section.figures[1])] == ["demo", "plain18", "resnet18"], "not one of three is left out"
    assert [claim.title for claim in section.claims] == ["Shortcuts help at 18 layers"]
    assert section.missing == (
        "Not checked, since no run is completed: what the study says of Plain34, ResNet34, ResNet18-MS, "
        "pretrained ViT, ViT from scratch, custom ViT."
    )
    assert "One seed." in section.figures[0].caption


def test_of_runs_that_are_no_study_nothing_is_missing(tmp_path: Path) -> None:
    for rate in (0.1, 0.05):
        written(tmp_path, "resnet18", overrides=[f"optim.lr={rate}"])
    (section,) = sections(tmp_path)
    assert (section.claims, section.missing) == ([], "")


def test_every_one_of_many_experiments_is_drawn(tmp_path: Path) -> None:
    for i in range(8):
        written(tmp_path, "demo", error=0.1 + 0.05 * i, overrides=[f"name=demo{i}"])
    (section,) = sections(tmp_path)
    assert [(figure.name, figure.title) for figure in section.figures] == [
        ("all-loss", "All experiments, 1 to 6 of 8: loss"),
        ("all-error", "All experiments, 1 to 6 of 8: validation error"),
        ("all-2-loss", "All experiments, 7 to 8 of 8: loss"),
        ("all-2-error", "All experiments, 7 to 8 of 8: validation error"),
    ]
    drawn = [[*last_errors(figure)] for figure in section.figures[1::2]]
    assert drawn == [[f"demo{i}" for i in range(6)], ["demo6", "demo7"]]
    assert len({line.look for line in section.figures[1].lines}) == 6


def last_errors(figure: Figure) -> dict[str, float]:
    return {re.sub(", last .*", "", line.name): round(float(line.y[-1])) for line in figure.lines}


def test_a_figure_draws_every_experiment_that_its_title_names(tmp_path: Path) -> None:
    written(tmp_path, "resnet18", error=0.30, overrides=["optim.lr=0.1"])
    written(tmp_path, "resnet18", error=0.20, overrides=["optim.lr=0.05"])
    (section,) = sections(tmp_path)
    loss, error = section.figures
    assert (loss.title, error.title) == ("All experiments: loss", "All experiments: validation error")
    assert last_errors(error) == {"resnet18 (optim.lr=0.1)": 31, "resnet18 (optim.lr=0.05)": 21}
    assert len(loss.lines) == 4


@pytest.mark.parametrize(
    ("others", "title"), [(("demo",), "demo"), (("demo", "resnet18"), "Other experiments")], ids=["one", "two"]
)
def test_whoever_has_no_part_in_the_study_is_drawn_too(tmp_path: Path, others: tuple[str, ...], title: str) -> None:
    for name in ("plain18", "plain34", *others):
        written(tmp_path, name)
    (section,) = sections(tmp_path)
    assert [figure.title for figure in section.figures[::2]] == ["Plain18 and Plain34: loss", f"{title}: loss"]
    assert [*last_errors(section.figures[-1])] == [*others]


def test_of_too_many_each_part_is_drawn_and_the_others_counted(tmp_path: Path) -> None:
    for seed in range(2):
        for rate in range(8):
            written(tmp_path, "plain18", seed, error=0.1 + 0.1 * rate, overrides=[f"optim.lr={rate + 1}"])
    # The claims compare what differs least, though it has fewer seeds and the highest error.
    written(tmp_path, "plain34", overrides=["optim.lr=20"])
    written(tmp_path, "plain18", error=0.95, overrides=["optim.lr=20"])
    (section,) = sections(tmp_path)
    error = section.figures[1]
    assert error.title == "Plain18 and Plain34, 1 to 6 of 10: validation error"
    assert [*last_errors(error)][:2] == ["Plain18 (optim.lr=20.0)", "Plain34"]
    assert section.figures[3].title == "Plain18 and Plain34, 7 to 10 of 10: validation error"
    assert [len(last_errors(figure)) for figure in section.figures[1::2]] == [6, 4]
    assert "the mean of 1, 1, 2, 2, 2 and 2," in error.caption
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
    assert "Not drawn, since no values were logged: Plain34, validation." in loss.caption
    assert "Not drawn, since no values were logged: Plain34, last " in error.caption
    assert error.caption.startswith("One seed."), "one of the two has no validation"


def test_long_curves_are_thinned_to_points_of_the_mean_over_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        written(tmp_path, "demo", seed, epochs=800)
    (section,) = sections(tmp_path)
    *seeds, mean = section.figures[1].lines
    curves = [validation_error(run) for run in section.ranked[0].experiment.runs]
    exact = [*(values for _, values in curves), np.mean([values for _, values in curves], axis=0)]
    for line, values in zip([*seeds, mean], exact, strict=True):
        assert 100 < len(line.x) < 400
        np.testing.assert_allclose(line.y, values[line.x.astype(int) - 1], rtol=1e-12)
        assert (line.y.min(), line.y.max()) == pytest.approx((values.min(), values.max())), "no peak is lost"
