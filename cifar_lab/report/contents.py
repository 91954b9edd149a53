"""What a report says, worked out once for the page, the Markdown text and the terminal."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cifar_lab.report import wording
from cifar_lab.report.calibration import Calibration, calibration
from cifar_lab.report.claims import CONTRADICTED, HOLDS, NOT_SHOWN, OPEN, TITLES, Cast, Claim, check_claims
from cifar_lab.report.figure import Figure
from cifar_lab.report.groups import Experiment, Ranked, Table, labels, ranked, tables
from cifar_lab.report.other_sets import other_sets
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
        best, second, *more = [*self.ranked, None]
        mine = best.experiment.sample
        error = f"{wording.mean_error(mine)} ({wording.counted(len(mine.errors), 'seed')})"
        if second is None:
            return f"{best.label} has a test error of {error}."
        distance = f"{100 * (second.experiment.sample.mean - mine.mean):.2f}"
        below = "level with" if distance == "0.00" else f"{distance} points below"
        chance = f"the noise{' when all pairs are judged together' * (len(more) > 1)}"
        if all(row.experiment.sample.deviation is None for row in self.ranked):
            chance = "With one seed each this may be chance: train seed=1 and seed=2 of each too"
        elif best.rank == second.rank:
            chance = f"This difference is within {chance}, so it may be chance"
        else:
            chance = f"This difference is beyond {chance}"
        return f"{best.label} has the lowest test error, {error}, {below} {second.label}. {chance}."

    @property
    def told_claims(self) -> list[list[str]]:
        """Title, verdict, differences and reason of each claim."""
        return [[claim.title, claim.verdict, claim.differences, claim.why] for claim in self.claims]


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
    def groups(self) -> list[tuple[str, Experiment | None, list[RunRecord]]]:
        """All runs, those of one recipe but the seed together, under a label: experiments first, as in the tables."""
        groups: dict[object, list[RunRecord]] = {one: [*one.runs, *one.repeats] for one in self.experiments}
        placed = {run for runs in groups.values() for run in runs}
        homes = {(one.name, one.runs[0].identity): one for one in reversed(self.experiments)}
        for run in self.records:
            if run not in placed:
                key = run.name, run.identity
                groups.setdefault(homes.get(key, key), []).append(run)
        told = labels([Experiment(runs) for runs in groups.values()])
        experiments = [one if isinstance(one, Experiment) else None for one in groups]
        return list(zip(told, experiments, groups.values(), strict=True))

    @cached_property
    def other_sets(self) -> list[list[str]]:
        """What was measured on other test sets; the headings first."""
        return other_sets(self.groups, [ranked for section in self.sections for ranked in section.ranked])

    @property
    def ordered(self) -> list[RunRecord]:
        """All runs in the order of `groups`."""
        return [run for _, _, runs in self.groups for run in runs]

    @property
    def attention(self) -> list[RunRecord]:
        """Runs without a result, or with something unreadable."""
        return [run for run in self.ordered if not run.counts or run.problems]

    @property
    def headline(self) -> str:
        """What was compared, what came out, and what has no result."""
        states = [run.state for run in self.ordered if not run.counts]
        left = Counter("completed without a test result" if state == "completed" else state for state in states)
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
    def verdicts(self) -> list[str]:
        """What the verdicts mean, of those that occur."""
        found = {claim.verdict for section in self.sections for claim in section.claims}
        return [f"{verdict}: {text}" for verdict, text in VERDICTS.items() if verdict in found]


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
    missing = f"Not checked, since no run is completed: what the study says of {', '.join(absent)}." if told else ""
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
TEXT_COLUMNS = ("rank", "experiment", "strategy and topology")

NOTES = (
    "Test error is the share of test pictures that were classified wrongly (accuracy is the rest of 100 %): mean ± "
    "standard deviation (n - 1) over seeds. All else is a mean over seeds. Of several runs of a seed the last counts.",
    "A 95 % interval says where the true value is likely to lie for new seeds and new test pictures: about 95 of 100 "
    "hold it. It joins the spread over seeds with what the choice of test pictures adds, compared picture by picture "
    "(Student's t, Welch's degrees of freedom). If no experiment has two seeds, only the pictures count.",
    "A difference is within the noise if it may be chance. Experiments share a rank (1=) if they are within the noise "
    "of the best of that rank. All pairs of a table are judged together (Holm's procedure, with the spread over seeds "
    "of all experiments, or a larger own one): if all were equal, one table in twenty would tell any two apart.",
    "Peak memory is that of the GPU, or of the process if there is none. FLOPs are those of a forward pass; a "
    "multiply-add counts as two.",
)
VERDICTS = {
    HOLDS: "the whole 95 % interval agrees with the claim.",
    CONTRADICTED: "the whole 95 % interval says the opposite.",
    NOT_SHOWN: "the 95 % interval leaves room for both. It does not say that there is no difference.",
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
