"""Reliability diagrams: bins, expected calibration error, and what a drawing of them tells."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.written_runs import written

from cifar_lab.commands.report import main
from cifar_lab.report.calibration import BINS, Calibration
from cifar_lab.report.contents import Section, contents
from cifar_lab.report.read import read_run
from cifar_lab.report.svg import draw_reliability
from cifar_lab.rundir.placement import find_runs


def sections(runs: Path) -> list[Section]:
    return contents([read_run(path) for path in find_runs([runs])]).sections


def answered(runs: Path, seed: int, confidences: list[float], right: list[bool], **overrides: object) -> None:
    """A run with these answers to its test pictures."""
    run = written(runs, "demo", seed, error=1 - sum(right) / len(right), count=len(right))
    columns = {"confidences": np.array(confidences, np.float32)} if confidences else {}
    labels = np.arange(len(right)) % 10
    np.savez(
        run.path / "predictions.npz",
        ids=np.arange(len(right)), labels=labels, predictions=np.where(right, labels, (labels + 1) % 10), **columns,
    )  # fmt: skip


def pooled(runs: Path) -> Calibration:
    (one,) = sections(runs)[0].calibrations
    return one


def test_bins_and_error_are_those_of_the_definition(tmp_path: Path) -> None:
    """Compared with sums over single answers, as Guo et al. write them; the answers of two seeds count alike."""
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.1, 1, (2, 400)).astype(np.float32)
    right = rng.uniform(size=(2, 400)) < confidences**2
    for seed in range(2):
        answered(tmp_path, seed, confidences[seed].tolist(), right[seed].tolist())
    one = pooled(tmp_path)
    expected, of_bins = 0.0, []
    for m in range(1, BINS + 1):
        inside = (confidences > (m - 1) / BINS) & (confidences <= m / BINS)
        of_bins.append(int(inside.sum()))
        if inside.any():
            expected += inside.sum() / 800 * abs(right[inside].mean() - confidences[inside].astype(float).mean())
    assert one.counts.tolist() == of_bins
    assert one.error == pytest.approx(expected)
    assert one.error > 0.05, "these nets are too sure"
    assert one.told == "800 answers of 2 seeds, pooled"
    assert one.title == f"demo: ECE {100 * expected:.2f} %"


def test_the_ends_of_bins_and_a_net_that_is_as_right_as_it_is_sure(tmp_path: Path) -> None:
    answered(tmp_path, 0, [0.0, 0.5, 0.5, 1.0, 1.0], [False, True, False, True, True])
    one = pooled(tmp_path)
    assert [place for place in range(BINS) if one.counts[place]] == [0, 7, 14]
    assert one.error == pytest.approx(0)
    assert one.told == "5 answers of 1 seed"
    assert one.bin(14) == ("demo, confidence 93.3 to 100.0 %: 2 answers, accuracy 100.00 %, mean confidence 100.00 %")


def test_a_drawing_has_a_bar_for_each_bin_with_its_number_of_answers(tmp_path: Path) -> None:
    answered(tmp_path, 0, [0.3] * 4 + [0.9] * 6, [True] * 1 + [False] * 3 + [True] * 3 + [False] * 3)
    one = pooled(tmp_path)
    root = ElementTree.fromstring(draw_reliability(one))
    bars = root.findall("./g")
    assert [bar.findtext("text") for bar in bars] == ["4", "6"]
    assert [bar.findtext("title") for bar in bars] == [one.bin(4), one.bin(13)]
    heights = [float(bar.findall("rect")[0].get("height") or 0) for bar in bars]
    assert heights[0] / heights[1] == pytest.approx(0.25 / 0.5, rel=0.01)
    assert "ECE 26.00 %" in (root.findtext("text") or "")


def test_without_confidences_or_with_others_predictions_there_is_no_diagram(tmp_path: Path) -> None:
    answered(tmp_path / "none", 0, [], [True, False])
    assert sections(tmp_path / "none")[0].calibrations == []
    answered(tmp_path / "other", 0, [0.5, 0.6], [True, False])
    (run,) = find_runs([tmp_path / "other"])
    np.savez(run / "predictions.npz", ids=[0, 1], labels=[0, 1], predictions=[0, 1], confidences=[0.5, 0.6])
    assert sections(tmp_path / "other")[0].calibrations == []
    np.savez(run / "predictions.npz", ids=[0, 1], labels=[0, 1], predictions=[0, 0], confidences=[0.5, 60])
    assert "its confidences are not one share a picture" in read_run(run).problems[0]


def test_page_and_markdown_have_a_diagram_of_each_experiment(tmp_path: Path) -> None:
    for name in ("plain18", "demo"):
        written(tmp_path / "runs", name)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page, text = (tmp_path / "out" / "report.html").read_text(), (tmp_path / "out" / "report.md").read_text()
    for place, label in enumerate(("demo", "plain18"), start=1):
        assert f">{label}: ECE " in page
        assert f"(plots/reliability-{place}.svg)" in text
        drawn = ElementTree.parse(tmp_path / "out" / "plots" / f"reliability-{place}.svg").getroot()
        assert "1,000 answers of 1 seed" in (drawn.get("aria-label") or "")
    assert page.count("Guo et al. 2017") == text.count("Guo et al. 2017") == 1
