"""Runs of one experiment together, and experiments that were measured alike together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cifar_lab.recipe import Recipe, experiment_id
from cifar_lab.report.curves import number
from cifar_lab.report.record import SEED_AND_ID, RunRecord, flat
from cifar_lab.report.stats import Sample


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

    def digests(self) -> str:
        """Which pictures these were."""
        test = "unknown" if self.test is None else f"{self.test:08x}"
        return f"{(self.training or 'unknown')[:8]} and {test}"


@dataclass(frozen=True, eq=False)
class Experiment:
    """Completed runs that differ in their seed alone, one a seed, and repeats that are not counted."""

    name: str
    identity: str
    runs: list[RunRecord]
    repeats: list[RunRecord] = field(default_factory=list)

    @cached_property
    def sample(self) -> Sample:
        """Test errors over seeds."""
        errors = [run.test_error for run in self.runs if run.test_error is not None]
        return Sample(tuple(errors), self.runs[0].test_count)

    @property
    def recipe(self) -> dict[str, Any]:
        """That of its first seed."""
        return self.runs[0].recipe

    @property
    def val_error(self) -> float | None:
        """Mean validation error over the seeds that have one."""
        return _mean(run.val_error for run in self.runs)

    def mean(self, key: str) -> float | None:
        """Mean of a number of the summaries."""
        return _mean(run.figure(key) for run in self.runs)


@dataclass(frozen=True, eq=False)
class Table:
    """Experiments of one protocol, the lowest mean test error first."""

    protocol: Protocol
    experiments: list[Experiment]


def tables(records: Sequence[RunRecord]) -> list[Table]:
    """Every completed run in the table of its protocol; the table with most runs first."""
    counted = [record for record in records if record.counts]
    protocols = _protocols(counted)
    by_protocol: dict[Protocol, dict[tuple[str, str], list[RunRecord]]] = {}
    for record, protocol in zip(counted, protocols, strict=True):
        key = record.name, identity(record)
        by_protocol.setdefault(protocol, {}).setdefault(key, []).append(record)
    found = [
        Table(protocol, sorted((_experiment(*key, runs) for key, runs in groups.items()), key=_order))
        for protocol, groups in by_protocol.items()
    ]
    return sorted(found, key=lambda table: -sum(len(e.runs) for e in table.experiments))


def _order(experiment: Experiment) -> tuple[float, str, str]:
    return experiment.sample.mean, experiment.name, experiment.identity


def _experiment(name: str, identity: str, runs: Sequence[RunRecord]) -> Experiment:
    """One run a seed, the latest repeat of each."""
    latest: dict[int, RunRecord] = {}
    for run in sorted(runs, key=lambda run: (run.seed, run.repeat, run.updated)):
        latest[run.seed] = run
    counted = list(latest.values())
    return Experiment(name, identity, counted, [run for run in runs if all(run is not other for other in counted)])


def identity(record: RunRecord) -> str:
    """The experiment id, equal for all seeds; of a recipe that this version does not know, that of its folder."""
    try:
        return experiment_id(Recipe.model_validate(record.recipe))
    except (ValueError, TypeError, OverflowError):
        match = SEED_AND_ID.fullmatch(record.path.name)
        if match:
            return match[2]
        leaves = {key: value for key, value in flat(record.recipe).items() if key not in ("seed", "name")}
        return hashlib.sha256(repr(sorted(leaves.items())).encode()).hexdigest()[:8]


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
    return Protocol(
        source=str(data.get("name", "unknown data")),
        args=", ".join(f"{key}={value}" for key, value in sorted(flat(args).items())),
        num_train=int(num_train) if num_train > 0 else None,
        val_size=int(val_size) if val_size >= 0 else None,
        test_count=record.test_count,
        training=record.fingerprint,
        test=record.predictions.digest if record.predictions else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
