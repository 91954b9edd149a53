"""What is drawn, on which axes, and that the drawing can be read."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.contrast import contrast
from support.written_runs import written

from cifar_lab.report.contents import Section, contents
from cifar_lab.report.figure import Figure, Line, axis, log_axis, mean_curve
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


@pytest.mark.parametrize(
    "values",
    [
        [80, 40, 20, 15, 14, 13, 12.5, 12.4, 12.3, 12.2],
        [9, 5, 3, 2, 1.5, 1, 0.8, 0.7, 0.6, 0.5],
        [1e6, 3, 2, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 1e-6],
        [80, 40, 20],
        [90, 0, 0, 1, 0, 2, 0, 1, 0, 0],
        [-5, 5],
        [1e299, 1e-299],
    ],
)
def test_no_axis_cuts_anything(values: list[float]) -> None:
    figure = Figure("", "", [curve([50, 49, 48], faint=True), curve(values)])
    found = figure.y_axis()
    assert found.low <= min(values)
    assert found.high >= min(max(values), 1e300)
    assert len(found.ticks) >= 2
    left, top, right, bottom = map(float, re.findall(r'data-box="([^"]+)"', draw(figure))[0].split())
    for points in re.findall(r'points="([^"]+)"', draw(figure)):
        for x, y in (map(float, pair.split(",")) for pair in points.split()):
            assert left - 0.1 <= x <= right + 0.1
            assert top - 0.1 <= y <= bottom + 0.1


def test_an_axis_goes_where_reading_is_easiest_and_the_drawing_says_so() -> None:
    late = Figure("", "", [curve([80, 40, 20, 15, 14, 13, 12.5, 12.4, 12.3, 12.2])])
    assert late.y_axis().log, "the first epoch does not squeeze the rest"
    assert late.y_axis().ticks == [20, 50]
    assert ">log scale<" in draw(late)
    assert late.x_axis().low == 0
    short = Figure("", "", [curve([40, 30, 20])])
    assert (short.y_axis().low, short.y_axis().log) == (20, False), "not at zero, where nothing is"
    assert "log scale" not in draw(short)
    rate = Figure("", "", [curve([0.1, 5.1])], from_zero=True)
    assert (rate.y_axis().low, rate.y_axis().log) == (0, False)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(7, 90, [10, 20, 50]), (0.3, 2.3, [0.5, 1, 2]), (1e-3, 5, [0.001, 0.01, 0.1, 1]), (1e-300, 1e300, None)],
)
def test_ticks_of_a_log_axis(low: float, high: float, ticks: list[float] | None) -> None:
    found = log_axis(low, high)
    assert found.ticks == (ticks or found.ticks)
    assert 2 <= len(found.ticks) <= 9
    assert found.place(found.low, 0, 1) == 0
    assert found.place((found.low * found.high) ** 0.5, 0, 1) == pytest.approx(0.5)


def test_the_mean_is_where_all_seeds_have_a_value() -> None:
    x, mean = mean_curve(
        [
            (np.array([1.0, 2, 3]), np.array([1.0, 2, 3])),
            (np.array([1.0, 2]), np.array([3.0, 4])),
            (np.empty(0), np.empty(0)),
        ]
    )
    assert (x.tolist(), mean.tolist()) == ([1, 2], [2, 3])
    apart = mean_curve([(np.array([1.0, 2]), np.array([1.0, 2])), (np.array([3.0, 4]), np.array([3.0, 4]))])
    assert [len(values) for values in apart] == [0, 0], "no seed stands for the mean of two"


def test_each_point_tells_its_run_epoch_and_value() -> None:
    seed = curve([3.25, 2, 1], source="runs/0-abc", faint=True)
    figure = Figure("", "Loss", [seed, curve(range(1, 1001), kind="validation")], source="runs/1-def")
    drawn = ElementTree.fromstring(draw(figure))
    told = [title.text or "" for title in drawn.findall("./g[@class='values']/path/title")]
    assert told[:3] == [
        "runs/0-abc, epoch 1: 3.25",
        "runs/0-abc, epoch 2: 2",
        "runs/0-abc, epoch 3: 1",
    ]
    assert told[3] == "curve, validation, runs/1-def, epoch 1: 1"
    assert told[-1] == "curve, validation, runs/1-def, epoch 1000: 1000"
    assert len(told) == 3 + 440 // 16, "as close together as a pointer can tell apart"


def test_svg_has_every_point_and_its_file_stands_alone() -> None:
    lines = [curve([3, 2, 1], look=0), curve([2, 2, 2], look=1)]
    figure = Figure("name", "Losses & <more>", lines, y_title="loss")
    root = ElementTree.fromstring(standalone(draw(figure), figure.title))
    name = "{http://www.w3.org/2000/svg}"
    polylines = root.findall(f".//{name}polyline")
    assert len(polylines) == 2
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
    for scheme in (light, dark):
        paper, ink, soft = (
            re.findall(rf"\.chart {place} {{ fill: (#\w+)", scheme)[0] for place in (".paper", ".title", "text")
        )
        assert min(contrast(ink, paper), contrast(soft, paper)) >= 4.5
    assert root.find(f"{name}rect[@class='paper']") is not None, "readable on whatever page it stands"
    assert [root.get("width"), root.get("height")] == (root.get("viewBox") or "").split()[2:], "not as wide as the page"
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


def test_intervals_of_a_ranking_are_whole(tmp_path: Path) -> None:
    for seed in range(2):
        written(tmp_path, "plain18", seed, error=0.40 + 0.02 * seed)
        written(tmp_path, "plain34", seed, error=0.30 + 0.02 * seed)
    ranked = sections(tmp_path)[0].ranked
    wide = replace(ranked[0], low=0.01, high=0.99)
    drawn = ElementTree.fromstring(draw_ranking([wide, ranked[1]], "Test error"))
    start, end = map(float, re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", drawn.findall("./g/path")[0].get("d") or "")[0])
    ticks = [float((line.get("d") or "")[1:].split()[0]) for line in drawn.findall("./path[@class='grid']")]
    assert ticks[0] <= start < end <= ticks[-1], "within the axis"
    seeds = [float(circle.get("cx") or 0) for circle in drawn.findall("./g/circle")[:2]]
    assert (end - start) / (seeds[1] - seeds[0]) == pytest.approx(0.98 / 0.02, rel=0.02)
    told = [title.text for title in drawn.findall("./g/circle/title")[:2]]
    assert told == [f"{run.label}: {100 * (run.test_error or 0):.2f} %" for run in ranked[0].experiment.runs]


def test_a_ranking_of_more_than_it_shows_says_so(tmp_path: Path) -> None:
    (one,) = sections(written(tmp_path, "plain18").path)[0].ranked
    assert "Test error: 40 of 41" in draw_ranking([one] * 41, "Test error")
    assert "40" not in draw_ranking([one] * 40, "Test error").split("</text>")[0].split(">")[-1]


def test_names_of_a_ranking_are_told_apart_whole(tmp_path: Path) -> None:
    for rate in (0.05, 0.2):
        written(tmp_path, "resnet18_ms", overrides=[f"optim.lr={rate}", f"data.augment.cutout={100 * rate:.0f}"])
    ranked = sections(tmp_path)[0].ranked
    root = ElementTree.fromstring(draw_ranking(ranked, "Test error"))
    rows = root.findall("g")
    told = [" ".join(text.text or "" for text in row.findall("text[@class='name']")[:-1]) for row in rows]
    assert told == [row.label for row in ranked]
    lines = [[float(text.get("y") or 0) for text in row.findall("text[@class='name']")[:-1]] for row in rows]
    assert len(lines[0]) == 3
    assert min(lines[1]) - max(lines[0]) > 11, "names do not touch each other"
    # A phone of 390 px leaves 358 to a picture in Markdown.
    small = [float(size) for size in re.findall(r"font-size: (\d+)px", ElementTree.tostring(root, "unicode"))]
    assert min(small) * 358 / float((root.get("viewBox") or "").split()[2]) >= 10


def test_a_curve_of_one_point_tells_its_value() -> None:
    lines = [curve([0.5]), curve([0.501], look=1), curve([2.0], look=2), curve([0.1, 0.2], look=3)]
    root = ElementTree.fromstring(draw(Figure("loss", "Loss", lines)))
    told = {text.text: float(text.get("y") or 0) for text in root.findall("text[@text-anchor='end']")}
    assert {"0.5", "0.501", "2"} <= told.keys()
    assert abs(told["0.5"] - told["0.501"]) >= 15


def test_long_texts_are_shortened_to_their_room() -> None:
    assert shortened("short", 100) == "short"
    assert shortened("m" * 100, 100).endswith("…")
    assert len(shortened("m" * 100, 100)) < 10
