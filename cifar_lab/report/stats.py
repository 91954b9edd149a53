"""How far numbers from a few seeds and a finite test split can be told apart; docs/report.md says why in this way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
# Of a planned study: how often it shows a true difference. As usual in the planning of trials.
POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True, eq=False)
class Sample:
    """Test errors of one experiment, one a seed, each measured on the same `count` pictures.

    `rates` (count,): the share of its seeds that were wrong, of each picture; None where predictions are missing.
    `square`: mean square of one seed's answers to a picture; None where each is either right (0) or wrong (1).
    """

    errors: tuple[float, ...]
    count: int
    rates: NDArray[np.float64] | None = None
    square: float | None = None

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

    @cached_property
    def chance(self) -> float:
        """Variance of one seed's answer to one picture that neither explains: the residual mean square of seeds by
        pictures (two-way analysis of variance). A single seed does not show it: 0."""
        seeds, count = len(self.errors), self.count
        if self.rates is None or self.deviation is None or count < 2:
            return 0.0
        total = (self.mean if self.square is None else self.square) - self.mean**2
        left = total - (seeds - 1) / seeds * self.deviation**2 - float(np.var(self.rates))
        return max(left, 0.0) * seeds / (seeds - 1) * count / (count - 1)


@dataclass(frozen=True)
class Spread:
    """Standard deviation over seeds, pooled over experiments, with its degrees of freedom."""

    deviation: float
    degrees: int


@dataclass(frozen=True)
class Difference:
    """A difference of mean errors, its interval, and the p value of no difference.

    `seeds_known` tells whether any spread over seeds went into it, `pictures` is the variance that comes from the test
    pictures, `spreads` are the variances over seeds of its parts.
    """

    value: float
    low: float
    high: float
    p: float
    seeds_known: bool
    pictures: float
    spreads: tuple[float, ...]

    def seeds_to_tell(self, distance: float) -> int | None:
        """About how many seeds a part tell `distance` from 0 with a chance of `POWER`; None where MOST_SEEDS do not."""
        from scipy.special import stdtrit

        seeds = np.arange(2, MOST_SEEDS + 1)
        variance = self.pictures + sum(self.spreads) / seeds
        squares = max(sum(spread**2 for spread in self.spreads), 1e-100)
        degrees = variance**2 * seeds**2 * (seeds - 1) / squares
        quantiles = stdtrit(degrees, 0.5 + CONFIDENCE / 2) + stdtrit(degrees, POWER)
        enough = seeds[quantiles * np.sqrt(variance) <= distance]
        return int(enough[0]) if len(enough) else None


def pooled_spread(samples: Sequence[Sample]) -> Spread | None:
    """The usual spread over seeds, from all experiments with several; None without any."""
    several = [sample for sample in samples if len(sample.errors) > 1]
    degrees = sum(len(sample.errors) - 1 for sample in several)
    if not degrees:
        return None
    squares = sum((len(sample.errors) - 1) * (sample.deviation or 0) ** 2 for sample in several)
    return Spread(math.sqrt(squares / degrees), degrees)


def difference(
    parts: Sequence[tuple[int, Sample]], pooled: Spread | None, *, at_least_pooled: bool = False
) -> Difference:
    """The sum of sign * mean error over `parts`, with a 95 % interval for new seeds and new test pictures.

    Variance: spread over seeds, s^2 / n of each, plus what the choice of the test pictures adds. Quantile: Student's t,
    with degrees of freedom by Welch and Satterthwaite, infinitely many for the pictures. A single seed borrows the
    `pooled` spread; with `at_least_pooled` so does each whose own one is smaller, and the pooled degrees count for all.
    """
    from scipy.special import stdtr, stdtrit  # takes longer to import than a report without runs

    value = sum(sign * sample.mean for sign, sample in parts)
    pictures = _picture_variance(parts)
    shares: list[tuple[float, int]] = []  # variance and degrees of freedom of each estimated part
    spreads: list[float] = []
    borrowed = 0.0
    for _, sample in parts:
        seeds, own = len(sample.errors), sample.deviation
        if pooled and (at_least_pooled or own is None):
            spreads.append(max(own or 0.0, pooled.deviation) ** 2)
            borrowed += spreads[-1] / seeds
        elif own is not None:
            spreads.append(own**2)
            shares.append((own**2 / seeds, seeds - 1))
    if borrowed and pooled:
        shares.append((borrowed, pooled.degrees))
    variance = pictures + sum(share for share, _ in shares)
    denominator = sum(share**2 / degrees for share, degrees in shares)
    degrees_of_freedom = variance**2 / denominator if denominator > 0 else math.inf
    error = math.sqrt(variance)
    half = float(stdtrit(degrees_of_freedom, 0.5 + CONFIDENCE / 2)) * error
    p = 2 * float(stdtr(degrees_of_freedom, -abs(value) / error))
    return Difference(value, value - half, value + half, p, len(spreads) == len(parts), pictures, tuple(spreads))


def intervals(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """The ends of the 95 % interval of each mean; a single seed borrows the spread pooled over all."""
    pooled = pooled_spread(samples)
    found = [difference([(1, sample)], pooled) for sample in samples]
    # An error lies between 0 and 1, whatever two seeds make of the interval.
    return [(max(one.low, 0.0), min(one.high, 1.0)) for one in found]


def _picture_variance(parts: Sequence[tuple[int, Sample]]) -> float:
    """Variance of a sum of means that comes from the choice of the test pictures, all other chance left out.

    Paired: that of the sum of rates over pictures, less the part of `chance`, which the spread over seeds has already.
    One picture more is taken to differ, else equal predictions would have none. Without all predictions: binomial.
    """
    rates = [sign * sample.rates for sign, sample in parts if sample.rates is not None]
    if len(rates) < len(parts):
        return sum(sample.binomial_variance for _, sample in parts)
    chance = sum(sample.chance / len(sample.errors) for _, sample in parts)
    count = parts[0][1].count
    return (max(float(np.var(sum(rates))) - chance, 0.0) + 1 / count) / count


def ranks(samples: Sequence[Sample]) -> list[str]:
    """Ranks of samples that are sorted by mean: what cannot be told from the best of a rank shares it, as `2=`.

    Over all pairs together at most one table in twenty tells equal ones apart: Holm's step-down procedure (1979) on t
    tests with the pooled spread, as R's pairwise.t.test does it; but a larger own spread is kept.
    """
    pooled = pooled_spread(samples)
    pairs = {
        pair: difference([(1, samples[pair[1]]), (-1, samples[pair[0]])], pooled, at_least_pooled=True).p
        for pair in combinations(range(len(samples)), 2)
    }
    apart: set[tuple[int, int]] = set()
    for pair, p in sorted(pairs.items(), key=lambda item: item[1]):
        if p > (1 - CONFIDENCE) / (len(pairs) - len(apart)):
            break
        apart.add(pair)
    places: list[int] = []
    for position in range(len(samples)):
        leader = places[-1] if places else 0
        places.append(position if (leader, position) in apart else leader)
    return [f"{place + 1}{'=' if places.count(place) > 1 else ''}" for place in places]
