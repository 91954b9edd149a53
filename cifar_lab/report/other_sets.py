"""Errors on other test sets than the runs' own, as `cifar-lab evaluate --data` keeps them, next to the test error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_lab.report import wording
from cifar_lab.report.groups import Experiment, Ranked, latest
from cifar_lab.report.record import Evaluations, RunRecord
from cifar_lab.report.stats import Sample, intervals

HEADINGS = ["experiment", "test set", "pictures", "seeds", "error", "95 % interval"]
HEADINGS += [f"severity {number}" for number in range(1, 6)]
NOTE = (
    "Errors on other test sets, as `cifar-lab evaluate RUN --data SET` measured them, with intervals like that of the "
    "test error. The severities of a corruption show the same pictures, which therefore count once. The plain mean of "
    "several corruptions is that of their errors, not divided by the errors of another net."
)


def evaluation(kept: Mapping[str, Any]) -> Evaluations:
    """What `cifar-lab evaluate --data` kept of one set. Raises LookupError, TypeError, ValueError."""
    wrong = np.zeros(kept["count"], np.bool_)
    wrong[kept["wrong"]] = True
    return {(kept["set"], kept["fingerprint"]): wrong.reshape(len(kept["severities"] or "1"), -1)}


def other_sets(
    groups: Sequence[tuple[str, Experiment | None, Sequence[RunRecord]]], ranked: Sequence[Ranked]
) -> list[list[str]]:
    """Headings, and a row for each experiment and set, the test error first; empty where there are no other sets."""
    found: dict[tuple[str, str], dict[int, list[NDArray[Any]]]] = {}
    for place, (_, experiment, runs) in enumerate(groups):
        for run in (experiment or latest(runs)).runs:
            for key, wrong in (run.evaluations | _means(run.evaluations)).items():
                found.setdefault(key, {}).setdefault(place, []).append(wrong)
    names, rows = [name for name, _ in found], [list[list[str]]() for _ in groups]
    for (name, digest), seeds in sorted(found.items()):
        name = f"{name} ({digest[:8]})" if names.count(name) > 1 else name
        answers = [np.mean(wrong, axis=1) for wrong in seeds.values()]
        samples = [
            Sample(tuple(a.mean(axis=1).tolist()), a.shape[1], a.mean(axis=0), float((a**2).mean())) for a in answers
        ]
        for (place, parts), sample, ends in zip(seeds.items(), samples, intervals(samples), strict=True):
            shares = np.mean(parts, axis=(0, 2)) if len(parts[0]) > 1 else ()
            row = _row(groups[place][0], name, sample, ends, len(shares))
            rows[place].append([*row, *map(wording.percent, shares)])
    for one in ranked:
        place = [experiment for _, experiment, _ in groups].index(one.experiment)
        own = _row(groups[place][0], "its test split", one.experiment.sample, (one.low, one.high))
        rows[place] = [own, *rows[place]] if rows[place] else []
    told = [row for sets in rows for row in sets]
    width = max(map(len, told), default=0)
    return [[*row, *[wording.MISSING] * (width - len(row))] for row in (HEADINGS[:width], *told)] if width else []


def _row(label: str, name: str, sample: Sample, ends: tuple[float, float], severities: int = 0) -> list[str]:
    pictures = f"{sample.count:,}{f' x {severities}' if severities else ''}"
    interval = f"{100 * ends[0]:.2f} to {wording.percent(ends[1])}"
    return [label, name, pictures, str(len(sample.errors)), wording.mean_error(sample), interval]


def _means(run: Evaluations) -> Evaluations:
    """Of each folder with several corruptions their mean."""
    folders: dict[tuple[str, tuple[int, ...]], list[tuple[str, NDArray[Any]]]] = {}
    for (name, digest), wrong in sorted(run.items()):
        folders.setdefault((name.rpartition("/")[0], wrong.shape), []).append((digest, wrong))
    found = {}
    for (folder, (severities, _)), parts in folders.items():
        if severities > 1 and len(parts) > 1:
            digests, answers = zip(*parts, strict=True)
            found[f"{folder}: plain mean of {len(parts)}", " ".join(digests)] = np.mean(answers, axis=0)
    return found
