"""Simulated studies whose true errors are known: what coverage, power and ranks are measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cifar_lab.report.stats import Sample


def simulated(
    rng: np.random.Generator, errors: Sequence[float], deviation: float, seeds: int, count: int = 10_000
) -> list[Sample]:
    """One sample for each true error, all measured on the same new pictures.

    `errors` are exact expectations over seeds and pictures, `deviation` is that of measured errors over seeds. Pictures
    are easy, hard for all nets, hard for one net (each seed of it), or shaky: there every seed of every net answers
    anew, wrongly with a chance about 1/2 that differs from seed to seed. Half of the measured variance is the chance
    of single shaky pictures and half is the seed's own, as far as there are errors enough for so many shaky ones.
    """
    lowest = min(errors)
    shaky = min(max(min(2 * count * deviation**2, lowest), 5 * deviation), 1.8 * lowest)
    own = np.sqrt(deviation**2 - shaky / 4 / count)  # deviation of a seed's true error
    for_all = (lowest - shaky / 2) / 2
    kind = rng.random(count)
    num_shaky, num_hard = (kind < shaky).sum(), ((kind >= shaky) & (kind < shaky + for_all)).sum()
    samples = []
    for error in errors:
        wrong = np.zeros((seeds, count), dtype=bool)
        wrong[:, num_shaky : num_shaky + num_hard] = True
        rest = (error - shaky / 2 - for_all) / (1 - shaky - for_all)
        wrong[:, num_shaky + num_hard :] = rng.random(count - num_shaky - num_hard) < rest
        chances = np.clip(0.5 + rng.normal(0, own / shaky, seeds), 0, 1)  # cut off on both sides alike
        wrong[:, :num_shaky] = rng.random((seeds, num_shaky)) < chances[:, None]
        samples.append(Sample(tuple(wrong.mean(1).tolist()), count, wrong.mean(0)))
    return samples
