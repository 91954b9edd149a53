"""How far numbers from a few seeds and a finite test split can be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample:
    """Test errors of one experiment, one a seed, each measured on `count` pictures."""

    errors: tuple[float, ...]
    count: int

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return fmean(self.errors)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (n - 1); None of a single one."""
        return stdev(self.errors) if len(self.errors) > 1 else None

    @property
    def binomial_variance(self) -> float:
        """Variance of the mean that comes from having measured on `count` pictures only.

        With one success and one failure added (Laplace), else an error of 0 would have none.
        """
        smoothed = (self.mean * self.count + 1) / (self.count + 2)
        return smoothed * (1 - smoothed) / self.count


@dataclass(frozen=True)
class Spread:
    """Standard deviation over seeds, pooled over experiments, with its degrees of freedom."""

    deviation: float
    degrees: int


@dataclass(frozen=True)
class Difference:
    """A difference of mean errors with its interval; `seeds_known` tells whether any spread over seeds went into it."""

    value: float
    low: float
    high: float
    seeds_known: bool


def pooled_spread(samples: Sequence[Sample]) -> Spread | None:
    """The usual spread over seeds, from all experiments with several; None without any."""
    several = [sample for sample in samples if len(sample.errors) > 1]
    degrees = sum(len(sample.errors) - 1 for sample in several)
    if not degrees:
        return None
    squares = sum((len(sample.errors) - 1) * (sample.deviation or 0) ** 2 for sample in several)
    return Spread(math.sqrt(squares / degrees), degrees)


def difference(parts: Sequence[tuple[int, Sample]], pooled: Spread | None) -> Difference:
    """The sum of sign * mean error over `parts`, with a 95 % interval.

    Variance: spread over seeds, s^2 / n of each, plus the binomial one of its test split. Quantile: Student's t, with
    degrees of freedom by Welch and Satterthwaite, infinitely many for the binomial part. A single seed borrows the
    `pooled` spread. The same pictures were used for all, which is left out: the interval is rather too wide.
    """
    from scipy.special import stdtrit  # takes longer to import than a report without runs

    value = sum(sign * sample.mean for sign, sample in parts)
    variance = sum(sample.binomial_variance for _, sample in parts)
    shares: list[tuple[float, int]] = []  # variance and degrees of freedom of each estimated part
    single = [sample for _, sample in parts if len(sample.errors) == 1]
    for _, sample in parts:
        if sample.deviation is not None:
            shares.append((sample.deviation**2 / len(sample.errors), len(sample.errors) - 1))
    if single and pooled:
        shares.append((len(single) * pooled.deviation**2, pooled.degrees))
    variance += sum(share for share, _ in shares)
    denominator = sum(share**2 / degrees for share, degrees in shares)
    degrees_of_freedom = variance**2 / denominator if denominator > 0 else math.inf
    half = float(stdtrit(degrees_of_freedom, 0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    seeds_known = pooled is not None or not single
    return Difference(value, value - half, value + half, seeds_known)


def ranks(samples: Sequence[Sample]) -> list[str]:
    """Ranks of samples that are sorted by mean: what cannot be told from the best of a rank shares it, as `2=`."""
    pooled = pooled_spread(samples)
    places: list[int] = []
    for position, sample in enumerate(samples):
        leader = places[-1] if places else 0
        apart = difference([(1, sample), (-1, samples[leader])], pooled)
        places.append(leader if apart.low <= 0 <= apart.high else position)
    return [f"{place + 1}{'=' if places.count(place) > 1 else ''}" for place in places]
