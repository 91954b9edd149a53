"""What a report says, worked out once for the page, the Markdown text and the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from cifar_lab.report import wording
from cifar_lab.report.calibration import Calibration, calibration
from cifar_lab.report.claims import CONTRADICTED, HOLDS, NOT_SHOWN, OPEN, TITLES, Cast, Claim, check_claims
from cifar_lab.report.figure import Figure
from cifar_lab.report.groups import Experiment, Ranked, Table, labels, ranked, tables
from cifar_lab.report.record import RunRecord
from cifar_lab.report.study import comparison, study_figures


@dataclass(frozen=True, eq=False)
class Section:
    """Everything about the experiments of one protocol."""

    slug: str
    protocol: str
    ranked: list[Ranked]
    claims: list[Claim]
    figures: list[Figure]
    calibrations: list[Calibration]
    missing: str  # a sentence on what of the study has no runs, empty where that is nothing

    def cells(self, titles: Sequence[str]) -> list[list[str]]:
        """The ranked table's texts in these of COLUMNS."""
        return [[COLUMNS[title](ranked) for title in titles] for ranked in self.ranked]

    @property
    def marked(self) -> list[str]:
        """What the marks in the table mean, of those that occur."""
        return [f"{mark} {text}" for mark, text in MARKS.items() if any(mark in row.marks for row in self.ranked)]

    @property
    def outcome(self) -> str:
        """Which error is the lowest, and by how much as far as that is more than chance."""
        best, *others = self.ranked
        error = f"{wording.mean_error(best.experiment.sample)} ({wording.counted(len(best.experiment.runs), 'seed')})"
        if not others:
            return f"{best.label} has a test error of {error}."
        second = others[0]
        distance = 100 * (second.experiment.sample.mean - best.experiment.sample.mean)
        below = f"{distance:.2f} points below" if distance >= 0.005 else "level with"
        found = f"{best.label} has the lowest test error, {error}, {below} {second.label}"
        if all(len(row.experiment.runs) == 1 for row in self.ranked):
            return f"{found}. With one seed each this may be chance: train seed=1 and seed=2 of each too."
        noise = f"the noise{' when all pairs are judged together' if len(others) > 1 else ''}"
        if best.rank != second.rank:
            return f"{found}. This difference is beyond {noise}."
        return f"{found}. This difference is within {noise}, so it may be chance."

    @property
    def told_claims(self) -> list[list[str]]:
        """Title, verdict, differences and reason of each claim."""
        return [[claim.title, claim.verdict, claim.differences, claim.why] for claim in self.claims]


class Group(NamedTuple):
    """Runs that differ in their seed alone, whatever became of them; without a result there is no `experiment`."""

    label: str
    experiment: Experiment | None
    runs: list[RunRecord]

    @property
    def anchor(self) -> str:
        """Its place on the page; that of a single run is the run's."""
        return f"{'of-' if len(self.runs) > 1 else ''}{self.runs[0].anchor}"


@dataclass(frozen=True, eq=False)
class Contents:
    """The whole report."""

    records: list[RunRecord]
    sections: list[Section]

    @property
    def experiments(self) -> list[Experiment]:
        """Those of all tables."""
        return [ranked.experiment for section in self.sections for ranked in section.ranked]

    @cached_property
    def groups(self) -> list[Group]:
        """All runs: the experiments of the tables in their order, each with its runs without a result, then others."""
        found: list[tuple[Experiment | None, list[RunRecord]]] = [
            (one, [*one.runs, *one.repeats]) for one in self.experiments
        ]
        placed = {run for _, runs in found for run in runs}
        homes = {(runs[0].name, runs[0].identity): runs for _, runs in reversed(found)}
        for record in self.records:
            if record in placed:
                continue
            if (record.name, record.identity) not in homes:
                homes[record.name, record.identity] = []
                found.append((None, homes[record.name, record.identity]))
            homes[record.name, record.identity].append(record)
        told = labels([Experiment(runs) for _, runs in found])
        return [Group(label, *one) for label, one in zip(told, found, strict=True)]

    @property
    def ordered(self) -> list[RunRecord]:
        """All runs in the order of `groups`."""
        return [run for group in self.groups for run in group.runs]

    @property
    def attention(self) -> list[RunRecord]:
        """Runs without a result, or with something unreadable."""
        return [run for run in self.ordered if not run.counts or run.problems]

    @property
    def headline(self) -> str:
        """What was compared, what came out, and what has no result."""
        states = ("completed without a test result" if r.state == "completed" else r.state for r in self.attention)
        left = Counter(state for state, run in zip(states, self.attention, strict=True) if not run.counts)
        left["repeated"] = sum(len(one.repeats) for one in self.experiments)
        missing = ", ".join(f"{number} {state}" for state, number in left.items() if number)
        if not self.sections:
            return f"No run has a test result: {missing}."
        runs = sum(len(one.runs) for one in self.experiments)
        told = f"{wording.counted(len(self.experiments), 'experiment')}, {wording.counted(runs, 'run')}"
        if len(self.sections) > 1:
            told += f", in {len(self.sections)} tables that do not compare. In the first"
        return f"{told}: {self.sections[0].outcome}{f' Not counted: {missing}.' if missing else ''}"

    @property
    def verdicts(self) -> dict[str, str]:
        """What the verdicts mean, of those that occur."""
        found = {claim.verdict for section in self.sections for claim in section.claims}
        return {verdict: text for verdict, text in VERDICTS.items() if verdict in found}


def contents(records: Sequence[RunRecord]) -> Contents:
    """Work out tables, claims and figures."""
    found = tables(records)
    words = [table.protocol.describe() for table in found]
    # Protocols that differ in nothing but their pictures are told apart by numbers.
    headings = [
        text if words.count(text) == 1 else f"{text}, pictures {words[: index + 1].count(text)}"
        for index, text in enumerate(words)
    ]
    sections = [
        _section(table, heading, index) for index, (table, heading) in enumerate(zip(found, headings, strict=True))
    ]
    return Contents(list(records), sections)


def _section(table: Table, heading: str, index: int) -> Section:
    """What the runs of one table allow; of the study only the first one tells what they do not."""
    experiments = table.experiments
    prefix = f"protocol{index + 1}-" if index else ""
    claims = check_claims(experiments)
    named = dict(zip(experiments, labels(experiments), strict=True))
    figures, playing = study_figures(named, {e for claim in claims for e in claim.sides.values()})
    absent = Cast(experiments).absent
    told = not index and 0 < len(absent) < len(TITLES) - 1
    missing = f"No completed run of {', '.join(absent)}: what the study says of them is not checked." if told else ""
    others = [(label, experiment) for experiment, label in named.items() if experiment not in playing]
    if others:
        several = "Other experiments" if figures else "All experiments"
        figures += comparison("all", several if len(others) > 1 else others[0][0], others)
    figures = [replace(figure, name=f"{prefix}{figure.name}") for figure in figures]
    measured = [
        calibration(f"{prefix}reliability-{place}", label, experiment)
        for place, (experiment, label) in enumerate(named.items(), start=1)
    ]
    reliable = [one for one in measured if one]
    return Section(f"{prefix}ranking", heading, ranked(experiments), claims, figures, reliable, missing)


COLUMNS: dict[str, Callable[[Ranked], str]] = {
    "rank": lambda r: r.rank,
    "experiment": lambda r: r.label,
    "test error": lambda r: wording.mean_error(r.experiment.sample),
    "seeds": lambda r: f"{len(r.experiment.runs)}{r.marks}",
    "val error": lambda r: wording.percent(r.experiment.val_error),
    "parameters": lambda r: wording.scaled(r.experiment.mean("num_parameters")),
    "FLOPs/image": lambda r: wording.scaled(r.experiment.mean("flops_per_image")),
    "epochs": lambda r: wording.plain(r.experiment.mean("epochs")),
    "images/s": lambda r: wording.whole(r.experiment.mean("images_per_second")),
    "peak memory": lambda r: wording.memory(r.experiment.mean("peak_memory_bytes")),
    "wall time": lambda r: wording.duration(r.experiment.mean("wall_seconds")),
    "strategy and topology": lambda r: wording.topology(r.experiment.runs),
}
RANKING = "Test error, the lowest first"
TEXT_COLUMNS = ("rank", "experiment", "strategy and topology")

NOTES = (
    "Test error is the share of the test pictures that were classified wrongly (accuracy is the rest of 100 %): mean ± "
    "standard deviation (n - 1) over seeds. All other numbers are means over seeds. If a seed was trained several "
    "times, the run written last counts.",
    "A 95 % interval says where the true value is likely to lie for new seeds and new test pictures: about 95 of 100 "
    "such intervals hold it. Few seeds or few test pictures make it wide. It joins the spread over seeds with what the "
    "choice of the test pictures adds, compared picture by picture (Student's t, Welch's degrees of freedom). If no "
    "experiment has two seeds, only the pictures count.",
    "A difference is within the noise if it may be chance. Experiments share a rank (1=) if their difference to the "
    "best of that rank is within the noise. All pairs of a table are judged together (Holm's procedure, with the "
    "spread over seeds of all experiments, or a larger own one): if all were equally good, about one table in twenty "
    "would tell any two apart.",
    "Peak memory is that of the GPU, or of the process if there is none. FLOPs are those of a forward pass; a "
    "multiply-add counts as two.",
)
VERDICTS = {
    HOLDS: "the whole 95 % interval agrees with the claim.",
    CONTRADICTED: "the whole interval says the opposite.",
    NOT_SHOWN: "the interval leaves room for both, so these runs do not decide it. It does not say that there is no "
    "difference.",
    OPEN: "a run is missing, or there are too few seeds to decide.",
}
MARKS = {
    "*": "One seed only. Its interval uses the spread over seeds of the other experiments.",
    "†": "The file predictions.npz of a run is missing or belongs to another result. Differences are then not compared "
    "picture by picture, and their intervals are rather too wide.",
}
SEPARATE = (
    "These runs were trained or measured under {count} protocols (other data, split sizes or pictures). Do not compare "
    "numbers of different tables."
)
RELIABILITY = (
    "Test pictures by confidence (the probability that the net gave to its answer), in 15 bins. Bar: how many of them "
    "were answered correctly. Diamond: their mean confidence. Below: their number. "
    "A net whose bars end below the dashed line is too sure. "
    "ECE is the mean distance between bar and confidence, weighted by number (Guo et al. 2017)."
)
