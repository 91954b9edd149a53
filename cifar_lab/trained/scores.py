"""What predictions are worth: class by class, how they are confused, and whether confidence can be believed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cifar_lab.cli.printable import error_rate, percent, shown
from cifar_lab.cli.table import table
from cifar_lab.report.balance import balanced_scores
from cifar_lab.report.calibration import BINS, binned
from cifar_lab.report.other_sets import HEADINGS, evaluation, other_sets
from cifar_lab.report.record import RunRecord

WIDEST = 20  # classes of which the confusion matrix still fits a terminal

Array = npt.NDArray[Any]


def class_scores(labels: Array, predictions: Array, names: Sequence[str]) -> dict[str, Any]:
    """`confusion`: how often truth (row) was taken for prediction (column); `classes` in order; `balanced_scores`.

    A class's accuracy is the share of its pictures that were found (recall), None without pictures; its precision that
    of the pictures taken for it that are of it, None if none was.
    """
    num = len(names)
    confusion = np.bincount(labels * num + predictions, minlength=num**2).reshape(num, num)
    classes = []
    for i, name in enumerate(names):
        count, correct, predicted = int(confusion[i].sum()), int(confusion[i, i]), int(confusion[:, i].sum())
        one = {"name": name, "count": count, "correct": correct, "predicted": predicted}
        classes.append(one | {"accuracy": _share(correct, count), "precision": _share(correct, predicted)})
    return {"classes": classes, "confusion": confusion.tolist(), **balanced_scores(labels, predictions)}


def calibration(confidences: Array, right: Array) -> dict[str, Any]:
    """Of the probability of each prediction (n,) and whether it was right (n,), n > 0.

    Expected calibration error over `BINS` bins (low, high] of equal width (Guo et al. 2017, arXiv 1706.04599,
    equation 3). Bins without predictions have no means.
    """
    counts, sure, hits = binned(confidences, right)
    bins = [
        {"low": i / BINS, "high": (i + 1) / BINS, "count": int(n), "confidence": _share(p, n), "accuracy": _share(r, n)}
        for i, (n, p, r) in enumerate(zip(counts, sure, hits, strict=True))
    ]
    ece = float(np.abs(sure - hits).sum()) / len(confidences)
    return {"ece": ece, "mean_confidence": float(sure.sum()) / len(confidences), "bins": bins}


def _share(part: float, whole: int) -> float | None:
    return float(part / whole) if whole else None


def as_text(measured: Mapping[str, Any]) -> str:
    """A measurement as people read it: totals, a line a class, the confusion matrix."""
    tta = {False: "", True: ", with mirror images", "translate": ", with mirror images and translations"}
    ece, confidence, recorded = measured["ece"], measured["mean_confidence"], measured.get("recorded")
    lines = [
        shown(measured["model"]),
        f"{shown(measured['set'])}: {measured['count']:,} pictures{tta[measured['tta']]}",
        f"  error        {percent(1 - measured['accuracy'])} (accuracy {percent(measured['accuracy'])})",
        f"  loss         {measured['loss']:.4f}",
        f"  calibration  {percent(ece)} (ECE, {BINS} bins; mean confidence {percent(confidence)})",
    ]
    if np.ptp([one["count"] for one in measured["classes"]]) > 1:
        balanced, f1 = percent(measured["balanced_accuracy"]), percent(measured["macro_f1"])
        lines.append(f"  classes      {balanced} balanced accuracy, {f1} macro F1")
    if recorded is not None and all(recorded[key] == measured[key] for key in ("accuracy", "count")):
        lines.append("  equal to the run's summary.json")
    elif recorded is not None:
        told = f"{error_rate(recorded['accuracy'])} of {recorded['count']:,} pictures"
        lines.append(f"  the run's summary.json says {told}")
    if measured.get("same_data") is False:
        lines.append("  these are not the pictures of the training: val and train contain others")
    return "\n".join([*lines, "", _classes(measured), "", _confusion(measured)])


def as_table(measured: Sequence[Mapping[str, Any]]) -> str:
    """Other test sets in a line each, with intervals, and the means of folders of corruptions."""
    sets = {key: wrong for one in measured for key, wrong in evaluation(one).items()}
    rows = other_sets([("", None, [RunRecord(Path(), evaluations=sets)])], [])
    headings, *rows = ([*row[1:3], *row[4:]] for row in rows)
    return table(rows, headings, numbers=HEADINGS[2:])


def _classes(measured: Mapping[str, Any]) -> str:
    rows = []
    for index, (one, row) in enumerate(zip(measured["classes"], measured["confusion"], strict=True)):
        wrong = [0 if other == index else count for other, count in enumerate(row)]
        most = max(wrong)
        other = f"{measured['classes'][wrong.index(most)]['name']} ({most:,})" if most else "-"
        error = None if one["accuracy"] is None else 1 - one["accuracy"]
        rows.append([one["name"], f"{one['count']:,}", percent(error), percent(one["precision"]), other])
    numbers = ("pictures", "error", "precision")
    return table(rows, ("class", *numbers, "most often confused with"), numbers=numbers)


def _confusion(measured: Mapping[str, Any]) -> str:
    names = [one["name"] for one in measured["classes"]]
    if len(names) > WIDEST:
        return f"the confusion matrix of {len(names)} classes is in the output of --json"
    short = [name if len(name) <= 5 else f"{name[:4]}…" for name in names]  # ten of them fit 80 columns
    rows = [
        [name if len(name) <= 12 else f"{name[:11]}…", *(f"{count:,}" for count in row)]
        for name, row in zip(names, measured["confusion"], strict=True)
    ]
    told = "confusion matrix: rows are true classes, columns are predicted classes"
    return f"{told}\n{table(rows, ('', *short), numbers=short)}"
