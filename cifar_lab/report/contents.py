"""What a report says, worked out once for the page, the Markdown text and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cifar_lab.report import wording
from cifar_lab.report.claims import TITLES, Cast, Claim, check_claims
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
    missing: str  # a sentence on what of the study has no runs, empty where that is nothing

    def cells(self, titles: Sequence[str]) -> list[list[str]]:
        """The ranked table's texts in these of COLUMNS."""
        return [[COLUMNS[title](ranked) for title in titles] for ranked in self.ranked]

    @property
    def marked(self) -> list[str]:
        """What the marks in the table mean, of those that occur."""
        return [f"{mark} {text}" for mark, text in MARKS.items() if any(mark in row.marks for row in self.ranked)]

    @property
    def told_claims(self) -> list[list[str]]:
        """Title, verdict, differences and reason of each claim."""
        return [[claim.title, claim.verdict, claim.differences, claim.why] for claim in self.claims]


@dataclass(frozen=True, eq=False)
class Contents:
    """The whole report; `attention` are runs without a result, or with something unreadable."""

    records: list[RunRecord]
    sections: list[Section]
    attention: list[RunRecord]

    @property
    def experiments(self) -> list[Experiment]:
        """Those of all tables."""
        return [ranked.experiment for section in self.sections for ranked in section.ranked]

    @property
    def ordered(self) -> list[RunRecord]:
        """All runs: those of the tables in the order of these, their repeats, then the others."""
        first = [run for experiment in self.experiments for run in [*experiment.runs, *experiment.repeats]]
        return first + [record for record in self.records if record not in first]


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
    attention = [record for record in records if not record.counts or record.problems]
    return Contents(list(records), sections, attention)


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
    return Section(f"{prefix}ranking", heading, ranked(experiments), claims, figures, missing)


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
TEXT_COLUMNS = ("rank", "experiment", "strategy and topology")

NOTES = (
    "Test error is the share of wrong test pictures (accuracy is the rest of 100 %), mean ± standard deviation (n - 1) "
    "over seeds; the other numbers are means over seeds. Of several runs of one seed the one written last counts.",
    "A rank is shared (=) where the difference to the best of that rank is within noise, judged for all pairs of the "
    "table together: where all are equal, about one table in twenty tells any two apart (Holm's procedure, with the "
    "pooled spread over seeds or a larger own one).",
    "An interval (95 %) is about new seeds and new test pictures. It joins the spread over seeds, which has the chance "
    "of single pictures in it, and the variance of the paired difference over the pictures, the same for all. "
    "Student's t, with Welch's degrees of freedom; where no experiment has two seeds only the pictures count.",
    "Peak memory is that of the GPU, or of the process where there is none. FLOPs are of a forward pass; a "
    "multiply-add counts as two.",
)
MARKS = {
    "*": "One seed, which borrows the spread over seeds of the other experiments.",
    "†": "predictions.npz of a run is missing or is not of its result: differences are not paired by picture, their "
    "intervals take the binomial noise of each test result and are rather too wide.",
}
SEPARATE = (
    "These runs were trained or measured under {count} protocols (other data, split sizes or pictures). Numbers of "
    "different tables do not compare."
)
