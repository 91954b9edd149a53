"""Scores in which each class counts alike, against their formulas worked out by hand, and where the report has them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from support.written_runs import written

from cifar_lab.report.balance import balanced_scores
from cifar_lab.report.contents import contents
from cifar_lab.report.files import write_report
from cifar_lab.report.read import read_run


@pytest.mark.parametrize(
    ("labels", "predictions", "accuracy", "f1"),
    [
        ([0, 1], [0, 1], 1, 1),
        ([0] * 9 + [1], [0] * 10, (1 + 0) / 2, (18 / 19 + 0) / 2),  # 90 % right
        ([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 2], (3 / 4 + 1 / 2 + 1) / 3, (6 / 8 + 2 / 4 + 1) / 3),
        ([0, 0], [0, 3], 1 / 2, (2 / 3 + 0) / 2),  # class 3 has no picture, so no recall
        ([7, 70_000], [7, 7], 1 / 2, (2 / 3 + 0) / 2),  # classes in between cost nothing
    ],
)
def test_by_hand(labels: list[int], predictions: list[int], accuracy: float, f1: float) -> None:
    found = balanced_scores(np.array(labels), np.array(predictions))
    assert found == pytest.approx({"balanced_accuracy": accuracy, "macro_f1": f1})


def test_the_report_has_them_where_classes_are_not_equally_frequent(tmp_path: Path) -> None:
    even, uneven = (written(tmp_path, "plain18", seed, count=100).path for seed in (0, 1))
    labels, predictions = np.array([0] * 90 + [1] * 10), np.array([0] * 80 + [1] * 10 + [0] * 10)
    with np.load(uneven / "predictions.npz") as old:
        new = {**old, "labels": labels, "predictions": predictions}
    np.savez_compressed(uneven / "predictions.npz", **new)
    page = write_report(contents([read_run(even), read_run(uneven)]), tmp_path / "report")
    rows = {row["seed"]: row for row in csv.DictReader((page.parent / "results.csv").read_text().splitlines())}
    assert (rows["0"]["balanced_accuracy"], rows["0"]["macro_f1"]) == ("", "")
    assert float(rows["1"]["balanced_accuracy"]) == pytest.approx((80 / 90 + 0) / 2)
    assert float(rows["1"]["macro_f1"]) == pytest.approx((160 / 180 + 0) / 2)
    text = page.read_text()
    assert text.count("<dt>balanced accuracy</dt><dd>44.44 %</dd>") == 1
    assert text.count("<dt>macro F1</dt><dd>44.44 %</dd>") == 1
