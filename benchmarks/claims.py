"""Coverage and power of the report's intervals, its verdicts and its ranks, on simulated studies of known truth.

    python benchmarks/claims.py [--studies 1000]

Two nets, measured on the same 10,000 new pictures each time, the first worse by 0.5 points (tests/support/simulated.py
says how they err). Three intervals for the difference, from the same studies:

  binomial   spread over seeds and binomial noise of each test result: what the report takes without predictions
  seeds      spread over seeds alone: Welch's interval of the measured errors
  paired     spread over seeds and the variance of the paired difference over pictures: what the report takes

Coverage is how often the 95 % interval holds the true difference, power how often it lies above zero. Then how often
nine equal nets all share a rank: each against the first of its rank by itself, and with all pairs together. Prints JSON
on its last line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.simulated import simulated  # noqa: E402

from cifar_lab.report.stats import Sample, difference, pooled_spread, ranks  # noqa: E402

ERRORS, DEVIATIONS, SEEDS = (0.05, 0.2, 0.5), (0.001, 0.005, 0.02), (3, 10)
TRUE = 0.005


def binomial(sample: Sample) -> Sample:
    """As it is without predictions."""
    return replace(sample, rates=None)


def seeds_alone(sample: Sample) -> Sample:
    """As if it were measured on pictures without end."""
    return replace(sample, rates=None, count=10**12)


METHODS = {"binomial": binomial, "seeds": seeds_alone, "paired": lambda sample: sample}


def cell(rng: np.random.Generator, error: float, deviation: float, seeds: int, studies: int) -> dict[str, float]:
    """Shares of the studies: interval holds the truth, lies above zero, lies below zero; by method."""
    found: dict[str, list[tuple[bool, bool, bool]]] = {name: [] for name in METHODS}
    for _ in range(studies):
        worse, better = simulated(rng, (error + TRUE, error), deviation, seeds)
        for name, seen in METHODS.items():
            interval = difference([(1, seen(worse)), (-1, seen(better))], None)
            found[name].append((interval.low <= TRUE <= interval.high, interval.low > 0, interval.high < 0))
    return {
        f"{name} {what}": float(share)
        for name, told in found.items()
        for what, share in zip(("coverage", "power", "contradicted"), np.mean(told, axis=0), strict=True)
    }


def each_by_itself(samples: Sequence[Sample]) -> bool:
    """Whether all share a rank where each is compared with the best alone, without predictions."""
    seen = [binomial(sample) for sample in samples]
    pooled = pooled_spread(seen)
    intervals = [difference([(1, sample), (-1, seen[0])], pooled) for sample in seen[1:]]
    return all(interval.low <= 0 <= interval.high for interval in intervals)


def equal_nets(rng: np.random.Generator, error: float, deviation: float, seeds: int, studies: int) -> dict[str, float]:
    """Share of tables in which nine equal nets share the first rank."""
    told = []
    for _ in range(studies):
        samples = sorted(simulated(rng, [error] * 9, deviation, seeds), key=lambda sample: sample.mean)
        told.append((each_by_itself(samples), set(ranks(samples)) == {"1="}))
    before, together = np.mean(told, axis=0)
    return {"each by itself": float(before), "all pairs": float(together)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="in each cell (default: 1000)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    results = []
    print("                           coverage, %              above zero (power), %    below zero, %")
    print("error deviation seeds      " + "binomial seeds paired    " * 3)
    for error in ERRORS:
        for deviation in DEVIATIONS:
            for seeds in SEEDS:
                told = cell(rng, error, deviation, seeds, options.studies)
                results.append({"error": error, "deviation": deviation, "seeds": seeds, **told})
                shares = (
                    "".join(f"{100 * told[f'{name} {what}']:8.1f}" for name in METHODS)
                    for what in ("coverage", "power", "contradicted")
                )
                print(f"{100 * error:4.0f}% {100 * deviation:8.1f} {seeds:5d}  {' '.join(shares)}", flush=True)
    print("\nnine equal nets share a rank, %    each by itself   all pairs together")
    for error, deviation, seeds in ((0.05, 0.001, 3), (0.05, 0.005, 3), (0.2, 0.005, 3), (0.2, 0.005, 10)):
        told = equal_nets(rng, error, deviation, seeds, options.studies // 2)
        results.append({"nets": 9, "error": error, "deviation": deviation, "seeds": seeds, **told})
        shares = "".join(f"{100 * share:18.1f}" for share in told.values())
        print(f"{100 * error:4.0f}% {100 * deviation:8.1f} {seeds:5d}      {shares}", flush=True)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
