"""Beta quantiles, the mixing of pairs and its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifar_lab.data.mixing import PairDraws, beta_quantiles, draw_pairs, mix_pairs_, soft_cross_entropy
from cifar_lab.data.randomness import Purpose, draw, integers
from cifar_lab.data.rectangles import mask_sides
from cifar_lab.recipe.augment import Augment

IDS = torch.arange(0, 40000, 2)
SIZE = (32, 32)


def weights(draws: PairDraws) -> torch.Tensor:
    rows, columns = mask_sides(draws.boxes, SIZE, draws.partner_weight)
    return rows * columns


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 8.0])
def test_beta_quantiles(alpha: float) -> None:
    q = beta_quantiles(alpha, 4096)
    assert q.dtype == torch.float64
    assert bool((q.diff() >= 0).all())
    assert torch.allclose(q + q.flip(0), torch.ones_like(q))
    assert abs(q.var(correction=0) - 1 / (4 * (2 * alpha + 1))) < 2e-4  # variance of Beta(a, a)
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert abs((q - 0.5).pow(4).mean() - fourth) < 1e-4
    sample = np.quantile(np.random.default_rng(0).beta(alpha, alpha, 400_000), [0.1, 0.25, 0.4, 0.6, 0.9])
    ours = np.interp([0.1, 0.25, 0.4, 0.6, 0.9], (np.arange(4096) + 0.5) / 4096, q.numpy())
    assert np.abs(sample - ours).max() < 0.006


@pytest.mark.parametrize("alpha", [1.5, 12.0, 16.0, 32.0, 100.0, 2000.0])
def test_beta_quantiles_of_large_alpha(alpha: float) -> None:
    q = beta_quantiles(alpha, 4096)
    assert bool((q.diff() >= 0).all())
    assert q.var(correction=0) * 4 * (2 * alpha + 1) == pytest.approx(1, abs=5e-3)


def test_beta_one_is_uniform() -> None:
    assert torch.allclose(beta_quantiles(1.0, 1000), (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000, atol=1e-9)


def test_mixup_conserves_the_sum_of_a_pair() -> None:
    draws = draw_pairs(Augment(mixup_alpha=0.4, cutmix_alpha=0.0), SIZE, IDS[:5], 0, 0)
    x = torch.randint(0, 256, (2 * len(draws.boxes), 3, 32, 32)).float()
    out = x.clone()
    mix_pairs_(out, weights(draws))
    assert torch.allclose(out[::2] + out[1::2], x[::2] + x[1::2], atol=1e-3)
    lam = draws.own_weight.repeat_interleave(2).view(-1, 1, 1, 1)
    partner = x.view(5, 2, 3, 32, 32).flip(1).view_as(x)
    assert torch.allclose(out, lam * x + (1 - lam) * partner, atol=1e-3)


def test_cutmix_exchanges_a_box_whose_area_is_the_label_share() -> None:
    draws = draw_pairs(Augment(mixup_alpha=0.0, cutmix_alpha=1.0), SIZE, IDS[:50], 0, 0)
    x = torch.randint(0, 256, (2 * len(draws.boxes), 3, 32, 32)).float()
    out = x.clone()
    mix_pairs_(out, weights(draws))
    pairs, mixed = x.view(50, 2, 3, 32, 32), out.view(50, 2, 3, 32, 32)
    assert torch.equal(mixed.transpose(1, 2).flatten(2).sort().values, pairs.transpose(1, 2).flatten(2).sort().values)
    for i, (top, bottom, left, right) in enumerate(draws.boxes.tolist()):
        expected = pairs[i].clone()
        expected[:, :, top:bottom, left:right] = pairs[i].flip(0)[:, :, top:bottom, left:right]
        assert torch.equal(mixed[i], expected)
        assert draws.own_weight[i] == pytest.approx(1 - (bottom - top) * (right - left) / 1024)
    assert not torch.equal(out, x)


def test_boxes_are_those_of_the_papers_code() -> None:
    height, width = 17, 32
    draws = draw_pairs(Augment(cutmix_alpha=1.0), (height, width), IDS[:500], 3, 1)
    of = {purpose: draw(IDS[:500], 3, 1, purpose) for purpose in Purpose}
    lam = beta_quantiles(1.0, 4096)[integers(of[Purpose.MIX_LAMBDA], 4096)].numpy()
    ys, xs = integers(of[Purpose.MIX_BOX_Y], height).numpy(), integers(of[Purpose.MIX_BOX_X], width).numpy()
    # github.com/clovaai/CutMix-PyTorch, train.py: rand_bbox
    cut_h, cut_w = (height * np.sqrt(1 - lam)).astype(int), (width * np.sqrt(1 - lam)).astype(int)
    top, bottom = np.clip(ys - cut_h // 2, 0, height), np.clip(ys + cut_h // 2, 0, height)
    left, right = np.clip(xs - cut_w // 2, 0, width), np.clip(xs + cut_w // 2, 0, width)
    assert np.array_equal(draws.boxes.numpy(), np.stack((top, bottom, left, right), axis=1))
    assert np.allclose(draws.own_weight.numpy(), 1 - (bottom - top) * (right - left) / (height * width), atol=1e-7)


def test_boxes_have_the_shape_of_the_picture_and_lie_anywhere() -> None:
    top, bottom, left, right = draw_pairs(Augment(cutmix_alpha=1.0), (16, 64), IDS, 0, 0).boxes.unbind(1)
    whole = (top > 0) & (bottom < 16) & (left > 0) & (right < 64)
    assert whole.sum() > 1000
    assert ((right - left) - 4 * (bottom - top))[whole].abs().max() <= 8  # whole pixels
    assert (top.min(), left.min(), bottom.max(), right.max()) == (0, 0, 16, 64)
    assert abs(((left + right) / 2)[whole].mean() - 32) < 1


def test_draws_follow_their_distributions() -> None:
    both = draw_pairs(Augment(mixup_alpha=1.0, cutmix_alpha=1.0), SIZE, IDS, 0, 0)
    cut = both.partner_weight == 1
    assert abs(cut.double().mean() - 0.5) < 0.02
    lam = both.own_weight[~cut].double()
    assert abs(lam.mean() - 0.5) < 0.02
    assert abs(lam.var() - 1 / 12) < 0.005
    assert torch.equal(both.boxes[~cut].unique(dim=0), torch.tensor([[0, 32, 0, 32]]))
    # A box of side s in 0..1 covers s - s**2 / 4 of a line on average, clipped; s**2 is uniform here.
    expected = 1 - (1 / 2 - 1 / 5 + 1 / 48)
    # Whole, even sides are a pixel of 32 shorter, so they cover a little less.
    assert 0.01 < both.own_weight[cut].double().mean() - expected < 0.035
    again = draw_pairs(Augment(mixup_alpha=1.0, cutmix_alpha=1.0), SIZE, IDS, 0, 1)
    assert not torch.equal(both.own_weight, again.own_weight)


def test_soft_cross_entropy_equals_cross_entropy_of_soft_targets() -> None:
    logits, labels = torch.randn(8, 10), torch.arange(8)
    own = torch.tensor([0.7, 0.7, 1.0, 1.0, 0.0, 0.0, 0.25, 0.25])
    one_hot = F.one_hot(labels, 10).float()
    partner = one_hot.view(4, 2, 10).flip(1).view(8, 10)
    targets = own[:, None] * one_hot + (1 - own)[:, None] * partner
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        assert soft_cross_entropy(logits, labels, own, smoothing) == pytest.approx(float(expected), rel=1e-5)
        plain = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        assert soft_cross_entropy(logits, labels, None, smoothing) == plain
