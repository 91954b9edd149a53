"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of pairs, and the loss for mixed labels.

Pairs are positions 2i and 2i+1 of the micro-batch. Both are the same operation: a pixel of one becomes
(1 - w) * itself + w * the partner's, with w constant for mixup and 1 inside of a box, 0 outside for CutMix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lab.data.randomness import Purpose, draw, integers, uniform
from cifar_lab.data.rectangles import around

NUM_QUANTILES = 4096
_GRID = 1 << 16


def beta_quantiles(alpha: float, n: int) -> Tensor:
    """The (i + 1/2) / n quantiles of Beta(alpha, alpha), i = 0 .. n-1, ascending, float64 (n,).

    The density is symmetric, so only [0, 1/2] is integrated; there u = x**alpha removes its singularity at 0:
    x**(a-1) (1-x)**(a-1) dx = (1 - u**(1/a))**(a-1) du / a on [0, 2**-a].
    """
    u = torch.linspace(0, 0.5**alpha, _GRID, dtype=torch.float64)
    density = (1 - u ** (1 / alpha)) ** (alpha - 1)
    cdf = torch.cat((torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(density, u)))
    cdf = 0.5 * cdf / cdf[-1]
    wanted = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    folded = torch.minimum(wanted, 1 - wanted)
    right = torch.searchsorted(cdf, folded).clamp(1, _GRID - 1)
    fraction = (folded - cdf[right - 1]) / (cdf[right] - cdf[right - 1])
    x = torch.lerp(u[right - 1], u[right], fraction) ** (1 / alpha)
    return torch.where(wanted <= 0.5, x, 1 - x)


@dataclass(frozen=True)
class PairDraws:
    """What happens to each of P pairs: `boxes` int64 (P, 4), `partner_weight` float32 (P,) inside of the box,
    and `own_weight` float32 (P,), the share of a sample's own label."""

    boxes: Tensor
    partner_weight: Tensor
    own_weight: Tensor


class PairMixing:
    """Draws of mixup and CutMix; an `alpha` of 0 switches that one off, with both on each pair draws which."""

    def __init__(self, mixup_alpha: float, cutmix_alpha: float, *, height: int, width: int) -> None:
        assert mixup_alpha > 0 or cutmix_alpha > 0
        self.height, self.width = height, width
        self._mixup = beta_quantiles(mixup_alpha, NUM_QUANTILES) if mixup_alpha > 0 else None
        self._cutmix = beta_quantiles(cutmix_alpha, NUM_QUANTILES) if cutmix_alpha > 0 else None

    def draw(self, ids: Tensor, seed: int, epoch: int) -> PairDraws:
        """Draws for the pairs whose first samples are `ids` (P,)."""
        quantile = integers(draw(ids, seed, epoch, Purpose.MIX_LAMBDA), NUM_QUANTILES)
        whole = torch.tensor([0, self.height, 0, self.width]).expand(len(ids), 4)
        if self._cutmix is None:
            assert self._mixup is not None
            lam = self._mixup[quantile]
            return PairDraws(whole, (1 - lam).float(), lam.float())
        center = (
            integers(draw(ids, seed, epoch, Purpose.MIX_BOX_Y), self.height),
            integers(draw(ids, seed, epoch, Purpose.MIX_BOX_X), self.width),
        )
        side = (1 - self._cutmix[quantile]).sqrt()
        sides = ((side * self.height).long(), (side * self.width).long())
        boxes = around(center, sides, (self.height, self.width))
        # The box was clipped, so the share follows from its area and not from lambda.
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        cut = PairDraws(boxes, torch.ones(len(ids)), (1 - area.double() / (self.height * self.width)).float())
        if self._mixup is None:
            return cut
        lam = self._mixup[quantile]
        chosen = uniform(draw(ids, seed, epoch, Purpose.MIX_CHOICE)) < 0.5
        return PairDraws(
            torch.where(chosen[:, None], cut.boxes, whole),
            torch.where(chosen, cut.partner_weight, (1 - lam).float()),
            torch.where(chosen, cut.own_weight, lam.float()),
        )


def mix_pairs_(x: Tensor, weight: Tensor) -> None:
    """In place on float32 (2P, C, H, W): (1 - w) * own + w * partner for `weight` (P, 1, H, W).

    Exact for whole-number pixels (0..255) where the weight is 0 or 1.
    """
    first, second = x[::2], x[1::2]
    # Memory traffic is all that counts: `addcmul` or `lerp` into a second buffer are fewer calls and slower.
    difference = (second - first).mul_(weight)
    first.add_(difference)
    second.sub_(difference)


def soft_cross_entropy(
    logits: Tensor, labels: Tensor, own_weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean over (b, classes) logits of own_weight * CE(label) + (1 - own_weight) * CE(partner's label); a scalar.

    `own_weight` (b,) or None for unmixed samples; the partner of position 2i is 2i+1 and the reverse.
    """
    if own_weight is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    partner = labels.view(-1, 2).flip(1).reshape(-1)
    own = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    other = F.cross_entropy(logits, partner, label_smoothing=label_smoothing, reduction="none")
    return torch.lerp(other, own, own_weight.to(own.dtype)).mean()
