"""What is drawn, on which axes, and that the drawing can be read."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.written_runs import STUDY_ERRORS, written, written_study

from cifar_lab.report.contents import contents
from cifar_lab.report.figure import Figure, Line, axis, band
from cifar_lab.report.groups import tables
from cifar_lab.report.read import read_run
from cifar_lab.report.study import study_figures
from cifar_lab.report.svg import draw, draw_ranking, shortened, standalone
from cifar_lab.rundir.placement import find_runs

TEN = [
    f"{name}-{kind}"
    for name in ("plain18-plain34", "resnet18-resnet34", "resnet18_ms", "vit_tiny", "vits")
    for kind in ("loss", "error")
]


def curve(values: Sequence[float], **more: object) -> Line:
    return Line("curve", np.arange(1.0, len(values) + 1), np.array(values), **more)  # type: ignore[arg-type]


def test_the_ten_figures(tmp_path: Path) -> None:
    written_study(tmp_path, seeds=2)
    (table,) = tables([read_run(path) for path in find_runs([tmp_path])])
    figures, missing = study_figures(table.experiments)
    assert [figure.name for figure in figures] == TEN
    assert missing == []
    loss, error = figures[:2]
    assert [line.label for line in loss.lines] == [
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
    (section,) = contents([read_run(path) for path in find_runs([tmp_path])]).sections
    assert [figure.name for figure in section.figures] == [*TEN[:2], *TEN[-2:]]
    assert section.missing == [
        "Plain18 and Plain34: drawn without plain34, no completed run of plain34",
        "ResNet18 and ResNet34: no completed run of resnet18, resnet34",
        "ResNet18-MS: no completed run of resnet18_ms",
        "Pretrained ViT: no completed run of vit_tiny",
        "The three ViTs: drawn without vit_tiny, vit_tiny_scratch, no completed run of vit_tiny, vit_tiny_scratch",
    ]
    assert "One seed." in section.figures[0].caption


def test_other_runs_get_a_figure_of_the_best(tmp_path: Path) -> None:
    for i in range(8):
        written(tmp_path, "demo", error=0.1 + 0.05 * i, overrides=[f"name=demo{i}"])
    (section,) = contents([read_run(path) for path in find_runs([tmp_path])]).sections
    assert [figure.title for figure in section.figures] == ["The best 6: loss", "The best 6: validation error"]
    assert len({line.look for line in section.figures[1].lines}) == 6
    assert section.missing == []


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (12.2, 19.0, ["12", "13", "14", "15", "16", "17", "18", "19"]),
        (71, 87, ["70", "72.5", "75", "77.5", "80", "82.5", "85", "87.5"]),
        (0, 0.05, ["0", "0.01", "0.02", "0.03", "0.04", "0.05"]),
        (0, 1e-6, ["0", "2e-07", "4e-07", "6e-07", "8e-07", "1e-06"]),
        (0, 52_000, ["0", "10000", "20000", "30000", "40000", "50000", "60000"]),
        (5, 5, None),
        (0, 0, None),
        (0, 4e-13, None),
        (7.8, 7.8 + 1e-14, None),  # the mean of three that are equal
        (2.302585092994046, 2.302585092994046 + 1e-12, None),
    ],
)
def test_ticks_are_round_and_their_texts_tell_them_apart(low: float, high: float, texts: list[str] | None) -> None:
    found = axis(low, high)
    shown = [found.text(tick) for tick in found.ticks]
    assert found.low <= low <= high <= found.high
    assert found.low < found.high
    assert len(set(shown)) == len(shown)
    assert shown == (texts or shown)
    assert [float(text) for text in shown] == pytest.approx(found.ticks)


def test_an_axis_of_anything_a_float_can_be() -> None:
    for low, high in ((0.0, 1.7e308), (-1.7e308, 1.7e308), (1.7e308, 1.7e308), (0.0, 5e-324)):
        found = axis(low, high)
        assert all(map(math.isfinite, (found.low, found.high, *found.ticks))), (low, high)
        assert [found.text(tick) for tick in found.ticks]


def test_a_figure_of_one_side_shows_the_experiment_that_the_claim_compares(tmp_path: Path) -> None:
    written(tmp_path, "resnet18", error=0.30)
    written(tmp_path, "resnet18_ms", error=0.25)
    written(tmp_path, "resnet18_ms", error=0.01, overrides=["model.args.width=16", "optim.lr=0.3"])
    (table,) = tables([read_run(path) for path in find_runs([tmp_path])])
    figures = {figure.name: figure for figure in study_figures(table.experiments)[0]}
    assert "last 25" in figures["resnet18_ms-error"].lines[0].label


def test_an_error_axis_starts_where_reading_is_easiest() -> None:
    late = Figure("", "", [curve([80, 40, 20, 15, 14, 13, 12.5, 12.4, 12.3, 12.2])])
    assert late.y_axis().low == 12, "not at zero, where nothing is"
    assert late.y_axis().high < 50, "the first epoch does not squeeze the rest"
    assert late.cut
    assert late.x_axis().low == 0
    near_zero = Figure("", "", [curve([9, 5, 3, 2, 1.5, 1, 0.8, 0.7, 0.6, 0.5])])
    assert near_zero.y_axis().low == 0
    short = Figure("", "", [curve([80, 40, 20])])
    assert short.y_axis().high >= 80
    assert not short.cut
    rate = Figure("", "", [curve([5.0, 5.1])], from_zero=True)
    assert rate.y_axis().low == 0


def test_a_band_covers_what_all_seeds_have() -> None:
    x, mean, low, high = band(
        [
            (np.array([1.0, 2, 3]), np.array([1.0, 2, 3])),
            (np.array([1.0, 2]), np.array([3.0, 4])),
            (np.empty(0), np.empty(0)),
        ]
    )
    assert x.tolist() == [1, 2]
    assert (mean.tolist(), low.tolist(), high.tolist()) == ([2, 3], [1, 2], [3, 4])


def test_svg_has_every_point_and_its_file_stands_alone() -> None:
    lines = [curve([3, 2, 1], look=0), curve([2, 2, 2], look=1, low=np.array([1.0, 1, 1]), high=np.array([3.0, 3, 3]))]
    figure = Figure("name", "Losses & <more>", lines, y_title="loss")
    root = ElementTree.fromstring(standalone(draw(figure), figure.title))
    name = "{http://www.w3.org/2000/svg}"
    polylines = root.findall(f".//{name}polyline")
    assert len(polylines) == 2
    assert len(root.findall(f".//{name}path[@class='band f1']")) == 1
    assert polylines[0].get("stroke-dasharray") != polylines[1].get("stroke-dasharray"), "told apart without colour"
    left, top, right, bottom = map(float, (root.get("data-box") or "").split())
    points = [tuple(map(float, pair.split(","))) for pair in (polylines[0].get("points") or "").split()]
    x_low, x_high = map(float, (root.get("data-x") or "").split())
    y_low, y_high = map(float, (root.get("data-y") or "").split())
    for (x, y), (epoch, value) in zip(points, [(1, 3), (2, 2), (3, 1)], strict=True):
        assert x == pytest.approx(left + (epoch - x_low) / (x_high - x_low) * (right - left), abs=0.1)
        assert y == pytest.approx(bottom - (value - y_low) / (y_high - y_low) * (bottom - top), abs=0.1)
    style = root.findtext(f"{name}style") or ""
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert ".s1 { stroke: #d55e00; }" in light
    assert ".s1 { stroke: #f5883d; }" in dark
    assert "var(" not in style, "programs that convert SVG know no variables"
    assert root.get("role") == "img"
    assert "curve ends at 1" in (root.get("aria-label") or "")


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [1e-9, 2e-9], [1e12, 2e12], [-5.0, 5.0]])
def test_odd_curves_are_drawn_too(values: list[float]) -> None:
    figure = Figure("", "odd", [curve(values)])
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d+|nan|inf", draw(figure))]
    assert all(map(math.isfinite, numbers))


def test_ranking_shows_every_experiment_with_seeds_and_interval(tmp_path: Path) -> None:
    written(tmp_path, "plain34", error=0.3)
    for seed in range(3):
        written(tmp_path, "plain18", seed, error=0.10 + 0.01 * seed)
    shown = contents([read_run(path) for path in find_runs([tmp_path])]).sections[0].ranked
    long = replace(shown[1], label="a very long name " * 6)
    root = ElementTree.fromstring(draw_ranking([shown[0], long], "Test error"))
    assert len(root.findall(".//circle")) == 4
    assert [text.text for text in root.findall(".//g/text") if "%" in (text.text or "")] == ["11.00 %", "30.00 %"]
    assert shown[0].low < 0.10 < 0.12 < shown[0].high


def test_long_texts_are_shortened_to_their_room() -> None:
    assert shortened("short", 100) == "short"
    assert shortened("m" * 100, 100).endswith("…")
    assert len(shortened("m" * 100, 100)) < 10
