"""report.html: one file, without network, for a desk and a phone, light and dark."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import cifar_lab
from cifar_lab.report.contents import Contents
from cifar_lab.report.curves import thinned
from cifar_lab.report.figure import Figure, Line
from cifar_lab.report.record import RunRecord
from cifar_lab.report.study import training_loss, validation_error
from cifar_lab.report.svg import DESK, PHONE, SMALL, templates

POINTS = 120
MOST_CLASSES, MOST_COUNTED = 20, 1000
CONFUSIONS = 10


def page(contents: Contents, pictures: Mapping[RunRecord, str], started: float) -> str:
    """The document; `pictures` are data URLs, `started` the Unix time."""
    names = {record.name for record in contents.records}
    return templates().get_template("page.html.j2").render(
        contents=contents,
        title=f"Report: {names.pop()}" if len(names) == 1 else f"Report on {len(contents.records)} runs",
        started=started,
        version=cifar_lab.__version__,
        pictures=pictures,
        repeats={run for experiment in contents.experiments for run in experiment.repeats},
        figures=run_figures,
        small=SMALL,
        sizes={"desk": DESK, "phone": PHONE},
        classes=classes,
        environment=environment,
    )  # fmt: skip


def run_figures(run: RunRecord) -> list[Figure]:
    """Losses, validation error, learning rate and throughput of one run, as far as they were logged."""
    raw, mean, validation = run.metrics.curve("train", "loss"), training_loss(run), run.metrics.curve("val", "loss")
    loss = []
    if len(mean[0]) >= 3 and len(raw[0]) >= 2 * len(mean[0]):
        loss.append(Line("", *thinned(*raw, POINTS), faint=True))
    else:
        mean = raw
    loss.append(Line("training", *thinned(*mean, POINTS), dashed=True))
    loss.append(Line("validation", *thinned(*validation, POINTS), look=1))
    rate, speed = (run.metrics.curve("train", key) for key in ("lr", "images_per_second"))
    figures = (
        Figure("loss", "Loss", loss),
        Figure("error", "Validation error (%)", [Line("", *thinned(*validation_error(run), POINTS), look=1)]),
        Figure("lr", "Learning rate", [Line("", *thinned(*rate, POINTS), look=2)], from_zero=True),
        Figure("speed", "Images per second", [Line("", *thinned(*speed, POINTS), look=3)], from_zero=True),
    )
    return [replace(figure, source=run.label) for figure in figures if figure.lines]


def classes(run: RunRecord) -> dict[str, Any] | None:
    """Confusion matrix, error of each class and the most common mistakes; of many classes the worst."""
    if run.predictions is None or not len(run.predictions.labels):
        return None
    labels, predictions = run.predictions.labels, run.predictions.predictions
    num = int(max(labels.max(), predictions.max(), len(run.classes) - 1)) + 1
    if num > MOST_COUNTED:
        return None
    names = [run.classes[i] if i < len(run.classes) else str(i) for i in range(num)]
    counts = np.zeros((num, num), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    worst = [i for i in np.argsort(shares.diagonal(), kind="stable").tolist() if counts[i].any()]
    wrong = counts - np.diag(counts.diagonal())
    mistaken = [divmod(place, num) for place in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS].tolist()]
    return {
        "names": names,
        "matrix": shares.tolist() if num <= MOST_CLASSES else None,
        "classes": [(names[i], 100 - shares[i, i]) for i in worst[:MOST_CLASSES]],
        "mistakes": [(wrong[i, j], names[i], names[j]) for i, j in mistaken if wrong[i, j]],
    }


def environment(run: RunRecord) -> dict[str, str]:
    """What the run ran on, as far as it is known."""
    told = {}
    for key, value in run.env.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            value = " ".join(map(str, value))
        if value not in (None, ""):
            told[key] = str(value)
    return told
