"""Intervals and ranks on simulated studies: how often they are right."""

import numpy as np
import pytest
from scipy.special import stdtrit
from support.simulated import simulated

from cifar_lab.report.stats import Difference, Sample, difference, ranks

CELLS = [
    (error, deviation, seeds) for error in (0.05, 0.2, 0.5) for deviation in (0.001, 0.005, 0.02) for seeds in (3, 10)
]


@pytest.mark.parametrize(("error", "deviation", "seeds"), CELLS)
def test_the_interval_holds_the_truth_as_often_as_it_says(error: float, deviation: float, seeds: int) -> None:
    rng, held = np.random.default_rng(1), []
    for _ in range(400):
        worse, better = simulated(rng, (error + 0.005, error), deviation, seeds)
        found = difference([(1, worse), (-1, better)], None)
        held.append(found.low <= 0.005 <= found.high)
    assert 0.925 <= np.mean(held) <= 0.975


def test_simulated_errors_are_as_asked() -> None:
    rng = np.random.default_rng(2)
    tables = [simulated(rng, (0.2, 0.25), 0.005, 3) for _ in range(300)]
    for net, error in enumerate((0.2, 0.25)):
        assert np.mean([table[net].mean for table in tables]) == pytest.approx(error, abs=0.001)
        variances = [(table[net].deviation or 0) ** 2 for table in tables]
        assert np.sqrt(np.mean(variances)) == pytest.approx(0.005, rel=0.1)


def test_pairing_shows_what_binomial_noise_hides() -> None:
    rng, shown = np.random.default_rng(3), []
    for _ in range(200):
        worse, better = simulated(rng, (0.205, 0.2), 0.005, 10)
        pairs = [(worse, better), tuple(Sample(s.errors, s.count) for s in (worse, better))]
        shown.append([difference([(1, a), (-1, b)], None).low > 0 for a, b in pairs])
    paired, binomial = np.mean(shown, axis=0)
    assert paired > binomial + 0.1


@pytest.mark.parametrize(("error", "deviation", "seeds"), [(0.05, 0.001, 3), (0.05, 0.005, 3), (0.2, 0.005, 5)])
def test_nine_equal_nets_share_a_rank(error: float, deviation: float, seeds: int) -> None:
    rng, shared = np.random.default_rng(4), []
    for _ in range(100):
        samples = sorted(simulated(rng, [error] * 9, deviation, seeds), key=lambda sample: sample.mean)
        shared.append(set(ranks(samples)) == {"1="})
    assert np.mean(shared) >= 0.9


def test_one_unsteady_net_splits_no_table_of_equal_ones() -> None:
    rng, shared = np.random.default_rng(8), []
    for _ in range(300):
        errors = rng.normal(0.2, np.array([0.002] * 8 + [0.02])[:, None], (9, 3))
        samples = sorted((Sample(tuple(row), 10**9) for row in errors), key=lambda sample: sample.mean)
        shared.append(set(ranks(samples)) == {"1="})
    assert np.mean(shared) >= 0.9


def test_chance_is_the_residual_of_seeds_by_pictures() -> None:
    wrong = np.random.default_rng(5).random((4, 50)) < np.linspace(0.1, 0.9, 50)
    sample = Sample(tuple(wrong.mean(1)), 50, wrong.mean(0))
    residuals = wrong - wrong.mean(1, keepdims=True) - wrong.mean(0, keepdims=True) + wrong.mean()
    assert sample.chance == pytest.approx((residuals**2).sum() / (3 * 49))
    assert Sample(sample.errors, 50).chance == 0, "without predictions it is not known"


def test_one_seed_each_is_mcnemars_variance() -> None:
    a, b = np.zeros(200), np.zeros(200)
    a[:20], b[10:26] = 1, 1  # 10 pictures that only the first takes wrongly, 6 that only the second does
    found = difference([(1, Sample((0.10,), 200, a)), (-1, Sample((0.08,), 200, b))], None)
    assert found.value == pytest.approx(4 / 200)
    assert found.pictures == pytest.approx((10 + 6 + 1 - 4**2 / 200) / 200**2), "one more discordant picture"


def test_what_the_spread_over_seeds_holds_is_not_counted_twice() -> None:
    rng = np.random.default_rng(6)
    coins = [rng.random((10, 10_000)) < 0.3 for _ in range(2)]  # no picture is harder than another
    a, b = (Sample(tuple(wrong.mean(1)), 10_000, wrong.mean(0)) for wrong in coins)
    found = difference([(1, a), (-1, b)], None)
    assert found.pictures < 0.05 * sum(found.spreads) / 10
    same = Sample((0.1, 0.1), 100, np.repeat([1.0, 0.0], [10, 90]))
    assert difference([(1, same), (-1, same)], None).high == pytest.approx(1.96 / 100, rel=1e-3), "one picture of 100"


def test_few_seeds_to_tell_cost_student_s_quantiles() -> None:
    for distance, spread in ((0.02, 0.01), (0.01, 0.01)):  # of one part: n - 1 degrees of freedom
        powerful = [
            n for n in range(2, 50) if (stdtrit(n - 1, 0.975) + stdtrit(n - 1, 0.8)) * spread / n**0.5 <= distance
        ]
        found = Difference(distance, 0.0, 1.0, 0.5, seeds_known=True, pictures=0.0, spreads=(spread**2,))
        assert found.seeds_to_tell(distance) == powerful[0]


def test_seeds_to_tell_are_those_with_which_four_of_five_studies_show_it() -> None:
    rng = np.random.default_rng(7)
    worse, better = simulated(rng, (0.06, 0.05), 0.01, 200)
    needed = difference([(1, worse), (-1, better)], None).seeds_to_tell(0.01)
    assert needed is not None
    shown = []
    for _ in range(300):
        worse, better = simulated(rng, (0.06, 0.05), 0.01, needed)
        shown.append(difference([(1, worse), (-1, better)], None).low > 0)
    assert 0.7 < np.mean(shown) < 0.9
    assert difference([(1, worse), (-1, better)], None).seeds_to_tell(1e-5) is None
