"""Intervals and ranks against numbers worked out elsewhere."""

import math
from statistics import NormalDist

import pytest

from cifar_lab.report.stats import Sample, difference, pooled_spread, ranks


def test_sample_has_mean_deviation_and_binomial_noise() -> None:
    sample = Sample((0.10, 0.12, 0.14), 10_000)
    assert sample.mean == pytest.approx(0.12)
    assert sample.deviation == pytest.approx(0.02)
    smoothed = 1201 / 10_002
    assert sample.binomial_variance == pytest.approx(smoothed * (1 - smoothed) / 10_000, rel=1e-12)
    assert Sample((0.0,), 100).binomial_variance > 0
    assert Sample((0.1,), 100).deviation is None


def test_difference_is_welchs_where_the_test_split_is_endless() -> None:
    # scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval() gives these.
    a, b = Sample((0.30, 0.34, 0.35), 10**12), Sample((0.20, 0.21, 0.25), 10**12)
    found = difference([(1, a), (-1, b)], None)
    assert found.value == pytest.approx(0.11)
    spread = math.sqrt(0.0007 / 3 + 0.0007 / 3)
    assert found.high - found.value == pytest.approx(2.776445 * spread, rel=1e-5), "four degrees of freedom"


def test_difference_of_single_seeds_is_binomial_or_borrows_the_spread() -> None:
    a, b = Sample((0.30,), 1000), Sample((0.20,), 1000)
    alone = difference([(1, a), (-1, b)], None)
    expected = NormalDist().inv_cdf(0.975) * math.sqrt(0.3 * 0.7 / 1000 + 0.2 * 0.8 / 1000)
    assert alone.high - alone.value == pytest.approx(expected, rel=0.01)
    assert not alone.seeds_known
    assert not difference([(1, a), (-1, Sample((0.1, 0.2, 0.3), 1000))], None).seeds_known
    assert alone.p == pytest.approx(2 * NormalDist().cdf(-0.1 / ((alone.high - alone.value) / 1.959964)), rel=1e-4)
    pooled = pooled_spread([a, Sample((0.1, 0.2, 0.3), 1000), Sample((0.2, 0.4), 1000)])
    assert pooled is not None
    assert (pooled.degrees, pooled.deviation) == (3, pytest.approx(math.sqrt((0.02 + 0.02) / 3)))
    borrowed = difference([(1, a), (-1, b)], pooled)
    assert borrowed.seeds_known
    assert borrowed.high - borrowed.low > 3 * (alone.high - alone.low)
    endless = difference([(1, Sample((0.30,), 10**12)), (-1, Sample((0.20,), 10**12))], pooled)
    quantile = 3.182446  # three degrees of freedom
    assert endless.high - endless.value == pytest.approx(quantile * math.sqrt(2) * pooled.deviation, rel=1e-5)


def test_ranks_are_shared_within_noise_and_counted_as_in_sport() -> None:
    samples = [
        Sample((0.100, 0.110, 0.105), 10_000),
        Sample((0.104, 0.112, 0.108), 10_000),
        Sample((0.20, 0.21, 0.205), 10_000),
        Sample((0.50,), 10_000),
    ]
    assert ranks(samples) == ["1=", "1=", "3", "4"]
    assert ranks([Sample((0.10,), 10_000), Sample((0.13,), 10_000)]) == ["1", "2"]
    assert ranks([Sample((0.10,), 100), Sample((0.13,), 100)]) == ["1=", "1="], "a hundred pictures tell less"
    assert ranks([Sample((0.10, 0.20), 10_000), Sample((0.13, 0.23), 10_000)]) == ["1=", "1="], "seeds differ by more"


def test_ranks_step_down() -> None:
    """Of three pairs 1 and 3 are told apart at 0.05 / 3; so 1 and 2, of p = 0.02, are at 0.05 / 2; 2 and 3 are not."""
    samples = [
        Sample(tuple(mean + deviation for deviation in (-0.01, -0.01, 0.0, 0.01, 0.01)), 10**12)
        for mean in (0.1, 0.117, 0.13)
    ]
    pooled = pooled_spread(samples)
    assert difference([(1, samples[1]), (-1, samples[0])], pooled, at_least_pooled=True).p == pytest.approx(
        0.02, rel=0.1
    )
    assert ranks(samples) == ["1", "2=", "2="]
