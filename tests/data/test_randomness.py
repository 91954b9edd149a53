"""Draws are pure functions of their keys, never change between versions, and look random."""

from __future__ import annotations

import torch

from cifar_lab.data.randomness import Purpose, draw, epoch_order, hash64, integers, torch_seed, uniform

IDS = torch.arange(20000)
GOLDEN_DRAWS = [-1113299930679017479, -1745491519785000338]
GOLDEN_INTEGERS = [939, 905]
GOLDEN_UNIFORM = [0.9396478898264923, 0.9053767151097039]
GOLDEN_ORDER = [1, 7, 5, 2, 4, 6, 3, 0]


def test_golden_values() -> None:
    assert hash64(1, 2, ids=torch.tensor([3])).item() == -3426316478316322125
    assert hash64(ids=torch.tensor([-1])).item() == -1956407806741107680
    assert draw(torch.tensor([0, 7]), 3, 4, Purpose.FLIP, 1).tolist() == GOLDEN_DRAWS
    assert epoch_order(torch.arange(8), 0, 1).tolist() == GOLDEN_ORDER
    assert integers(torch.tensor(GOLDEN_DRAWS), 1000).tolist() == GOLDEN_INTEGERS
    assert uniform(torch.tensor(GOLDEN_DRAWS)).tolist() == GOLDEN_UNIFORM
    assert torch_seed(0, 1, 2) == 686929853707064470


def test_the_order_of_keys_matters_and_each_id_is_hashed_alone() -> None:
    together = hash64(5, 9, ids=torch.arange(4))
    assert torch.equal(together, torch.cat([hash64(5, 9, ids=torch.tensor([i])) for i in range(4)]))
    assert not torch.equal(together, hash64(9, 5, ids=torch.arange(4)))


def test_every_input_bit_flips_half_of_the_output_bits() -> None:
    base = hash64(3, ids=IDS[:2000])
    for bit in (0, 1, 17, 40, 62):
        changed = hash64(3, ids=IDS[:2000] ^ (1 << bit)) ^ base
        flips = torch.stack([(changed >> k) & 1 for k in range(64)]).double().mean(dim=1)
        assert flips.min() > 0.44
        assert flips.max() < 0.56


def test_no_collisions_over_epochs_and_purposes() -> None:
    hashes = torch.cat([draw(IDS, 0, epoch, purpose) for epoch in range(3) for purpose in Purpose])
    assert len(hashes.unique()) == len(hashes)


def test_uniform_and_integers_are_uniform() -> None:
    u = uniform(draw(IDS, 0, 0, Purpose.CUTOUT_X))
    assert u.dtype == torch.float64
    assert 0 <= u.min() < 0.001
    assert 0.999 < u.max() < 1
    counts = integers(draw(IDS, 0, 0, Purpose.CROP_X), 9).bincount(minlength=9)
    chi2 = ((counts - len(IDS) / 9) ** 2 / (len(IDS) / 9)).sum()
    assert len(counts) == 9
    assert chi2 < 26  # 0.1 % of 8 degrees of freedom


def test_epoch_order_depends_on_ids_not_positions() -> None:
    order = epoch_order(IDS, 0, 3)
    assert torch.equal(order.sort().values, IDS)
    assert not torch.equal(order, epoch_order(IDS, 0, 4))
    assert not torch.equal(order, epoch_order(IDS, 1, 3))
    subset = IDS[IDS % 3 == 0]
    visited = IDS[order]
    assert torch.equal(subset[epoch_order(subset, 0, 3)], visited[visited % 3 == 0])


def test_torch_seed_is_accepted_and_differs() -> None:
    seeds = {torch_seed(seed, step, m) for seed in range(5) for step in range(20) for m in range(5)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.manual_seed(max(seeds))
