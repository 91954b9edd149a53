"""What the study claims, checked against the runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cifar_lab.report import wording
from cifar_lab.report.groups import Experiment, labels
from cifar_lab.report.record import differing
from cifar_lab.report.stats import MOST_SEEDS, Difference, Spread, difference, pooled_spread

HOLDS, CONTRADICTED, NOT_SHOWN, OPEN = "holds", "contradicted", "not shown", "not enough runs"
# Below so many seeds on a side, a difference within noise says nothing yet.
ENOUGH_SEEDS = 3
# "Not worse" can be shown only up to a margin: no number of runs shows a difference of exactly 0.
MARGIN = 0.005
INITIAL_WEIGHTS = ("model.pretrained", "model.weights")
NETWORK = ("model.name", "model.args.depth", *INITIAL_WEIGHTS)
TITLES = {
    "plain18": "Plain18",
    "plain34": "Plain34",
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
    "resnet18_ms": "ResNet18-MS",
    "vit_tiny": "pretrained ViT",
    "vit_tiny_scratch": "ViT from scratch",
    "vit_custom": "custom ViT",
}
# Title, sentence, and the recipes of which the first is claimed to be worse than the second.
COMPARED = (
    (
        "Degradation",
        "without shortcuts the deeper net is worse: Plain34 has a higher error than Plain18",
        "plain34",
        "plain18",
    ),
    ("Shortcuts help at 18 layers", "ResNet18 has a lower error than Plain18", "plain18", "resnet18"),
    ("Shortcuts help at 34 layers", "ResNet34 has a lower error than Plain34", "plain34", "resnet34"),
    (
        "Multi-scale features help",
        "ResNet18-MS has a lower error than the plain residual ResNet18",
        "resnet18",
        "resnet18_ms",
    ),
    (
        "Pretraining helps",
        "ViT-Tiny from pretrained weights has a lower error than the same net from random ones",
        "vit_tiny_scratch",
        "vit_tiny",
    ),
)


@dataclass(frozen=True)
class Evidence:
    """One difference of mean test errors and what it is the difference of."""

    what: str
    sides: list[tuple[str, Experiment]]
    difference: Difference
    caveats: list[str]


@dataclass(frozen=True)
class Claim:
    """A sentence, its verdict and why."""

    title: str
    sentence: str
    verdict: str
    because: str
    evidence: list[Evidence]

    @property
    def sides(self) -> dict[str, Experiment]:
        """All that is compared, each once, by its title."""
        return {title: experiment for one in self.evidence for title, experiment in one.sides}

    @property
    def differences(self) -> str:
        """The evidence as one text, in percentage points with intervals of 95 %."""
        told = []
        for one in self.evidence:
            low, high = (wording.points(value) for value in (one.difference.low, one.difference.high))
            told.append(f"{one.what}: {wording.points(one.difference.value)} ({low} to {high})")
        return "; ".join(told)

    @property
    def why(self) -> str:
        """`because`, and what else the experiments differ in."""
        caveats = dict.fromkeys(key for evidence in self.evidence for key in evidence.caveats)
        also = f". The experiments also differ in {', '.join(caveats)}" if caveats else ""
        single = [title for title, experiment in self.sides.items() if len(experiment.runs) == 1]
        if single and self.evidence[0].difference.seeds_known:
            also += f". The one seed of {', '.join(single)} borrows the spread of the other experiments"
        unpaired = [title for title, experiment in self.sides.items() if experiment.sample.rates is None]
        if unpaired:
            also += f". Not paired by picture: no predictions of all runs of {', '.join(unpaired)}"
        return self.because + also


def check_claims(experiments: Sequence[Experiment]) -> list[Claim]:
    """The study's claims on the experiments of one protocol, those that have runs on each side."""
    cast = Cast(experiments)
    claims = [_better(cast, *compared) for compared in COMPARED]
    found = [claims[0], _residual(cast), *claims[1:], *_other_transfers(cast)]
    return [claim for claim in found if claim]


class Cast:
    """Which experiment plays which part: those of a recipe's name, of several the pair that differs least."""

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self.experiments = experiments
        self.pooled: Spread | None = pooled_spread([experiment.sample for experiment in experiments])

    def named(self, role: str) -> list[Experiment]:
        """Candidates for a part, those with most seeds first, then by validation error: never by test error."""
        found = [e for e in self.experiments if e.name == role and (role != "vit_tiny" or starts_from_weights(e))]
        return sorted(
            found, key=lambda e: (-len(e.runs), e.val_error if e.val_error is not None else 1.0, e.runs[0].identity)
        )

    def pair(self, first: str, second: str) -> tuple[Experiment, Experiment] | None:
        """The two experiments of these parts that differ in the fewest other settings."""
        pairs = [(a, b) for a in self.named(first) for b in self.named(second)]
        return min(pairs, key=lambda pair: len(other_settings(*pair))) if pairs else None

    @property
    def absent(self) -> list[str]:
        """Titles of the parts that no experiment plays."""
        return [title for role, title in TITLES.items() if not self.named(role)]

    def evidence(self, what: str, *parts: tuple[int, Experiment]) -> Evidence:
        """The signed sum of mean errors, and the settings in which its experiments also differ."""
        measured = difference([(sign, experiment.sample) for sign, experiment in parts], self.pooled)
        caveats = dict.fromkeys(key for _, e in parts[1:] for key in other_settings(parts[0][1], e))
        experiments = [experiment for _, experiment in parts]
        return Evidence(what, list(zip(titles(experiments), experiments, strict=True)), measured, list(caveats))


def titles(experiments: Sequence[Experiment]) -> list[str]:
    """What a claim calls them; those of one name by what tells them apart."""
    return [TITLES.get(label, label) for label in labels(experiments)]


def starts_from_weights(experiment: Experiment) -> bool:
    """Whether training started from weights of another task."""
    model = experiment.runs[0].recipe.get("model")
    return isinstance(model, dict) and (model.get("pretrained") is True or bool(model.get("weights")))


def other_settings(a: Experiment, b: Experiment) -> list[str]:
    """Settings in which two experiments differ besides the network and its initial weights."""
    return [key for key in differing([a.runs[0], b.runs[0]]) if key not in NETWORK]


def _decided(evidence: Evidence, *, holds: bool, contradicted: bool, distance: float) -> tuple[str, str]:
    """A verdict and why; `distance` is how far the measured difference lies from what would not decide."""
    if not evidence.difference.seeds_known:
        return OPEN, "one seed each: the spread over seeds is not known; train seed=1 and seed=2"
    if contradicted:
        return CONTRADICTED, "the difference is beyond the noise, the other way round"
    if holds:
        return HOLDS, "the difference is beyond the noise"
    if min(len(experiment.runs) for _, experiment in evidence.sides) < ENOUGH_SEEDS:
        return OPEN, f"within the noise of so few seeds; {ENOUGH_SEEDS} or more a side may tell"
    seeds = evidence.difference.seeds_to_tell(distance)
    told = (
        f"about {seeds} seeds a side would" if seeds else f"on these test pictures not even {MOST_SEEDS:,} seeds would"
    )
    return NOT_SHOWN, f"within the noise; {told} decide it, if the true difference is the measured one"


def _positive(evidence: Evidence) -> tuple[str, str]:
    """Whether a difference that is claimed to be positive is, and why."""
    found = evidence.difference
    return _decided(evidence, holds=found.low > 0, contradicted=found.high < 0, distance=abs(found.value))


def _not_worse(evidence: Evidence) -> tuple[str, str]:
    """Whether a difference that is claimed not to be positive is below MARGIN, and why; above 0 it is contradicted."""
    found = evidence.difference
    return _decided(
        evidence,
        holds=found.high < MARGIN,
        contradicted=found.low > 0,
        distance=max(found.value, MARGIN - found.value),
    )


def _compare(cast: Cast, title: str, sentence: str, worse: Experiment, better: Experiment) -> Claim:
    names = titles([worse, better])
    evidence = cast.evidence(f"{names[0]} minus {names[1]}", (1, worse), (-1, better))
    return Claim(title, sentence, *_positive(evidence), [evidence])


def _better(cast: Cast, title: str, sentence: str, worse: str, better: str) -> Claim | None:
    pair = cast.pair(worse, better)
    return _compare(cast, title, sentence, *pair) if pair else None


def _residual(cast: Cast) -> Claim | None:
    title = "Shortcuts end the degradation"
    sentence = (
        "depth costs ResNet less than Plain, and ResNet34 is not worse than ResNet18 "
        f"(by {wording.plain(100 * MARGIN)} points or more)"
    )
    plain, residual = cast.pair("plain34", "plain18"), cast.pair("resnet34", "resnet18")
    if plain is None or residual is None:
        return None
    depth = cast.evidence("ResNet34 minus ResNet18", (1, residual[0]), (-1, residual[1]))
    saved = cast.evidence(
        "(Plain34 minus Plain18) minus (ResNet34 minus ResNet18)",
        (1, plain[0]),
        (-1, plain[1]),
        (-1, residual[0]),
        (1, residual[1]),
    )
    parts = {"depth costs less": _positive(saved), "ResNet34 is not worse": _not_worse(depth)}
    verdict = next(
        one for one in (CONTRADICTED, OPEN, NOT_SHOWN, HOLDS) if one in {found for found, _ in parts.values()}
    )
    because = "; ".join(f'"{what}" ({found}): {why}' for what, (found, why) in parts.items() if found == verdict)
    return Claim(title, sentence, verdict, because, [depth, saved])


def _other_transfers(cast: Cast) -> Iterator[Claim]:
    """Any two experiments that differ in their initial weights alone, one with and one without."""
    chosen = cast.pair("vit_tiny_scratch", "vit_tiny")
    for tuned in filter(starts_from_weights, cast.experiments):
        for scratch in cast.experiments:
            if starts_from_weights(scratch) or chosen == (scratch, tuned):
                continue
            if not set(differing([tuned.runs[0], scratch.runs[0]])) - set(INITIAL_WEIGHTS):
                sentence = (
                    f"the weights of {tuned.name} give a lower error than random ones in {scratch.name}, all else equal"
                )
                yield _compare(cast, f"Pretraining helps {tuned.name}", sentence, scratch, tuned)
