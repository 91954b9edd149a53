"""Runs of one experiment together, and experiments that were measured alike together."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cifar_lab.recipe import defaults
from cifar_lab.report.curves import number
from cifar_lab.report.record import RunRecord, differing
from cifar_lab.report.stats import Sample, intervals, pooled_spread, ranks


@dataclass(frozen=True)
class Protocol:
    """On what a run was trained and measured; numbers of different protocols do not compare."""

    source: str
    args: str
    num_train: int | None
    val_size: int | None
    test_count: int
    training: str | None  # fingerprint of the training pictures
    test: int | None  # digest of ids and labels of the test pictures

    def describe(self) -> str:
        """One line for a heading."""
        parts = [f"{self.source} ({self.args})" if self.args else self.source]
        if self.num_train:
            parts.append(f"{self.num_train:,} training pictures")
        held_out = f"{self.val_size:,} held out for validation" if self.val_size else "none held out for validation"
        return ", ".join([*parts, held_out, f"{self.test_count:,} test pictures"])


@dataclass(frozen=True, eq=False)
class Experiment:
    """Completed runs that differ in their seed alone, one a seed, and repeats that are not counted."""

    runs: list[RunRecord]
    repeats: list[RunRecord] = field(default_factory=list)

    @property
    def name(self) -> str:
        """That of its recipe."""
        return self.runs[0].name

    @cached_property
    def sample(self) -> Sample:
        """Test errors over seeds, and on which pictures they were made where all predictions are there."""
        errors = [run.test_error for run in self.runs if run.test_error is not None]
        wrong = [run.wrong for run in self.runs if run.wrong is not None]
        rates = np.mean(wrong, axis=0) if len(wrong) == len(self.runs) else None
        return Sample(tuple(errors), self.runs[0].test_count, rates)

    @property
    def val_error(self) -> float | None:
        """Mean validation error over the seeds that have one."""
        return _mean(run.val_error for run in self.runs)

    def mean(self, key: str) -> float | None:
        """Mean of a number of the summaries."""
        return _mean(run.figure(key) for run in self.runs)


@dataclass(frozen=True, eq=False)
class Ranked:
    """One line of a ranked table, with the ends of the interval of its mean error."""

    rank: str
    label: str
    experiment: Experiment
    low: float
    high: float
    marks: str  # of contents.MARKS


@dataclass(frozen=True, eq=False)
class Table:
    """Experiments of one protocol, the lowest mean test error first."""

    protocol: Protocol
    experiments: list[Experiment]


def tables(records: Sequence[RunRecord]) -> list[Table]:
    """Every completed run in the table of its protocol; the table with most runs first."""
    counted = [record for record in records if record.counts]
    protocols = _protocols(counted)
    by_protocol: dict[Protocol, dict[tuple[str, str, str | None], list[RunRecord]]] = {}
    for record, protocol in zip(counted, protocols, strict=True):
        key = record.name, record.identity, record.micro_batches
        by_protocol.setdefault(protocol, {}).setdefault(key, []).append(record)
    found = [
        Table(
            protocol,
            sorted(map(latest, groups.values()), key=lambda e: (e.sample.mean, e.name, e.runs[0].identity)),
        )
        for protocol, groups in by_protocol.items()
    ]
    return sorted(found, key=lambda table: -sum(len(e.runs) for e in table.experiments))


def latest(runs: Sequence[RunRecord]) -> Experiment:
    """One run a seed, the latest repeat of each."""
    latest = {run.seed: run for run in sorted(runs, key=lambda run: (run.seed, run.updated))}
    counted = list(latest.values())
    return Experiment(counted, [run for run in runs if run not in counted])


def labels(experiments: Sequence[Experiment]) -> list[str]:
    """Names, with what tells those of the same name apart: up to three settings, the identity where these do not."""
    told, default = [], defaults()
    for experiment in experiments:
        first = experiment.runs[0]
        namesakes = [other.runs[0] for other in experiments if other.name == experiment.name]
        known = default | first.fields if first.fields else {}
        parts = [f"{key}={known[key]}" for key in differing(namesakes) if key in known][:3]
        unlike = f" ({', '.join(parts) or first.identity})" if len(namesakes) > 1 else ""
        told.append(f"{experiment.name}{unlike}")
    return [
        f"{label[:-1]}, {experiment.runs[0].identity})" if told.count(label) > 1 else label
        for label, experiment in zip(told, experiments, strict=True)
    ]


def ranked(experiments: Sequence[Experiment]) -> list[Ranked]:
    """The lines of a table, of experiments in its order."""
    samples = [experiment.sample for experiment in experiments]
    pooled = pooled_spread(samples)
    found = []
    columns = ranks(samples), labels(experiments), experiments, intervals(samples)
    for rank, label, experiment, ends in zip(*columns, strict=True):
        borrows = pooled is not None and experiment.sample.deviation is None
        marks = ("*" if borrows else "") + ("†" if experiment.sample.rates is None else "")
        found.append(Ranked(rank, label, experiment, *ends, marks))
    return found


def _protocols(records: Sequence[RunRecord]) -> list[Protocol]:
    """The protocol of each; one whose pictures are not known goes where all else is equal and most others are."""
    known = [_protocol(record) for record in records]
    totals = Counter(known)

    def completed(protocol: Protocol) -> Protocol:
        if protocol.training is not None and protocol.test is not None:
            return protocol
        alike = [other for other in totals if _may_be(protocol, other)]
        return max(alike, key=lambda other: (other.training is not None, other.test is not None, totals[other]))

    return [completed(protocol) for protocol in known]


def _may_be(protocol: Protocol, other: Protocol) -> bool:
    """Whether `other` is equal in all that is known of `protocol`."""
    return all(
        mine in (None, theirs) for mine, theirs in zip(vars(protocol).values(), vars(other).values(), strict=True)
    )


def _protocol(record: RunRecord) -> Protocol:
    data = record.recipe.get("data")
    data = data if isinstance(data, dict) else {}
    args = data.get("args")
    args = args if isinstance(args, dict) else {}
    # `limit` and `val_size` say which pictures, num_train how many these were.
    num_train = number(record.summary.get("num_train"))
    val_size = number(data.get("val_size"))
    if 0 < val_size < 1:  # a part, of which the summary has the number
        val_size = record.of("val", "count")
    return Protocol(
        source=str(data.get("name", "unknown data")),
        args=", ".join(f"{key}={value}" for key, value in sorted(args.items())),
        num_train=int(num_train) if num_train > 0 else None,
        val_size=int(val_size) if val_size >= 0 else None,
        test_count=record.test_count,
        training=record.fingerprint,
        test=record.predictions.digest if record.predictions else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
