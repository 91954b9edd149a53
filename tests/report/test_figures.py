"""What is drawn, on which axes, and that the drawing can be read."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.written_runs import written

from cifar_lab.report.contents import Section, contents
from cifar_lab.report.figure import Figure, Line, axis, band
from cifar_lab.report.groups import Ranked
from cifar_lab.report.read import read_run
from cifar_lab.report.svg import draw, draw_ranking, shortened, standalone
from cifar_lab.rundir.placement import find_runs


def sections(runs: Path) -> list[Section]:
    return contents([read_run(path) for path in find_runs([runs])]).sections


def curve(values: Sequence[float], **more: object) -> Line:
    return Line("curve", np.arange(1.0, len(values) + 1), np.array(values), **more)  # type: ignore[arg-type]


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


def test_an_error_axis_starts_where_reading_is_easiest() -> None:
    late = Figure("", "", [curve([80, 40, 20, 15, 14, 13, 12.5, 12.4, 12.3, 12.2])])
    assert late.y_axis().low == 12, "not at zero, where nothing is"
    assert late.y_axis().high < 50, "the first epoch does not squeeze the rest"
    assert late.above == "above the axis until epoch 2: up to 80"
    assert late.x_axis().low == 0
    near_zero = Figure("", "", [curve([9, 5, 3, 2, 1.5, 1, 0.8, 0.7, 0.6, 0.5])])
    assert near_zero.y_axis().low == 0
    short = Figure("", "", [curve([80, 40, 20])])
    assert short.y_axis().high >= 80
    assert short.above == ""
    rate = Figure("", "", [curve([5.0, 5.1])], from_zero=True)
    assert rate.y_axis().low == 0


def test_whatever_an_axis_leaves_out_is_said_in_the_drawing() -> None:
    calm = [15, 15, 14.5, 14, 13, 12.5, 12.4, 12.3, 12.2, 12.1]
    wide = curve(calm, low=np.array(calm) - 1, high=np.array([95, 16, 15.5, 15, 14, 13, 13, 13, 13, 13]))
    figure = Figure("", "", [wide, curve(calm)])
    assert figure.y_axis().high < 95
    assert "above the axis until epoch 1: up to 95" in draw(figure), "the curve is inside, its band is not"
    every = Figure("", "", [curve(calm)])
    assert every.y_axis().high >= 15
    assert "above the axis" not in draw(every)


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
    apart = band([(np.array([1.0, 2]), np.array([1.0, 2])), (np.array([3.0, 4]), np.array([3.0, 4]))])
    assert [len(values) for values in apart] == [0, 0, 0, 0], "no seed stands for the mean of two"


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
    shown = sections(tmp_path)[0].ranked
    long = replace(shown[1], label="a very long name " * 6)
    root = ElementTree.fromstring(draw_ranking([shown[0], long], "Test error"))
    assert len(root.findall(".//circle")) == 4
    assert [text.text for text in root.findall(".//g/text") if "%" in (text.text or "")] == ["11.00 %", "30.00 %"]
    assert shown[0].low < 0.10 < 0.12 < shown[0].high


def test_an_interval_far_wider_than_the_seeds_is_cut_with_an_arrow_and_its_end(tmp_path: Path) -> None:
    for seed in range(2):
        written(tmp_path, "plain18", seed, error=0.40 + 0.02 * seed)
        written(tmp_path, "plain34", seed, error=0.30 + 0.02 * seed)
    first, second = sections(tmp_path)[0].ranked
    wide = replace(first, low=0.01, high=0.99)
    narrow = [
        replace(row, low=row.experiment.sample.mean - 0.01, high=row.experiment.sample.mean + 0.01)
        for row in (first, second)
    ]
    assert _ends([wide, narrow[1]]) == ["1.00 %", "99.00 %"]
    assert _ends([narrow[0], replace(narrow[1], high=0.99)]) == ["99.00 %"]
    assert _ends(narrow) == []


def _ends(ranked: Sequence[Ranked]) -> list[str | None]:
    drawn = ElementTree.fromstring(draw_ranking(ranked, "Test error"))
    return [text.text for text in drawn.findall(".//g/text[@class='end']")]


def test_a_ranking_of_more_than_it_shows_says_so(tmp_path: Path) -> None:
    (one,) = sections(written(tmp_path, "plain18").path)[0].ranked
    assert "Test error: 40 of 41" in draw_ranking([one] * 41, "Test error")
    assert "40" not in draw_ranking([one] * 40, "Test error").split("</text>")[0].split(">")[-1]


def test_names_of_a_ranking_are_told_apart_whole(tmp_path: Path) -> None:
    for rate in (0.05, 0.2):
        written(tmp_path, "resnet18_ms", overrides=[f"optim.lr={rate}", f"data.augment.cutout={100 * rate:.0f}"])
    ranked = sections(tmp_path)[0].ranked
    rows = ElementTree.fromstring(draw_ranking(ranked, "Test error")).findall("g")
    told = [" ".join(text.text or "" for text in row.findall("text[@class='name']")[:-1]) for row in rows]
    assert told == [row.label for row in ranked]
    assert len(rows[0].findall("text[@class='name']")) == 3, "two lines and the error"


def test_long_texts_are_shortened_to_their_room() -> None:
    assert shortened("short", 100) == "short"
    assert shortened("m" * 100, 100).endswith("…")
    assert len(shortened("m" * 100, 100)) < 10
