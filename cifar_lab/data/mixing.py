"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of pairs, and the loss for mixed labels.

Pairs are positions 2i and 2i+1 of the micro-batch. Both are the same operation: a pixel of one becomes
(1 - w) * itself + w * the partner's, with w constant for mixup and 1 inside of a box, 0 outside for CutMix. A weight
of 1 is an exchange of bytes, for which a quarter of the memory traffic does.
"""

from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lab.data.randomness import Purpose, draw, integers, uniform
from cifar_lab.data.rectangles import around, blanks, inside, mask_sides
from cifar_lab.recipe.augment import Augment

NUM_QUANTILES = 4096
_GRID = 1 << 16


@cache
def beta_quantiles(alpha: float, n: int) -> Tensor:
    """The (i + 1/2) / n quantiles of Beta(alpha, alpha), i = 0 .. n-1, ascending, float64 (n,).

    The density is symmetric, so only [0, 1/2] is integrated. Up to a = 1 it has a singularity at 0, which u = x**a
    removes: x**(a-1) (1-x)**(a-1) dx = (1 - u**(1/a))**(a-1) du / a on [0, 2**-a]. Above, it is taken as it is, times
    4**(a-1): there u would leave the peak at 1/2 without points.
    """
    power = min(alpha, 1.0)
    u = torch.linspace(0, 0.5**power, _GRID, dtype=torch.float64)
    density = (1 - u ** (1 / alpha)) ** (alpha - 1) if alpha <= 1 else (4 * u * (1 - u)) ** (alpha - 1)
    cdf = torch.cat((torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(density, u)))
    cdf = 0.5 * cdf / cdf[-1]
    wanted = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    folded = torch.minimum(wanted, 1 - wanted)
    right = torch.searchsorted(cdf, folded).clamp(1, _GRID - 1)
    fraction = (folded - cdf[right - 1]) / (cdf[right] - cdf[right - 1])
    x = torch.lerp(u[right - 1], u[right], fraction) ** (1 / power)
    return torch.where(wanted <= 0.5, x, 1 - x)


@dataclass(frozen=True)
class PairDraws:
    """What happens to each of P pairs: `boxes` int64 (P, 4), `partner_weight` float32 (P,) inside of the box,
    and `own_weight` float32 (P,), the share of a sample's own label."""

    boxes: Tensor
    partner_weight: Tensor
    own_weight: Tensor


def draw_pairs(augment: Augment, size: tuple[int, int], ids: Tensor, seed: int, epoch: int) -> PairDraws:
    """Draws of mixup or CutMix for the pairs whose first samples are `ids` (P,); with both, each pair draws which."""
    height, width = size
    quantile = integers(draw(ids, seed, epoch, Purpose.MIX_LAMBDA), NUM_QUANTILES)
    mixup: PairDraws | None = None
    if augment.mixup_alpha:
        lam = beta_quantiles(augment.mixup_alpha, NUM_QUANTILES)[quantile]
        whole = torch.tensor([0, height, 0, width]).expand(len(ids), 4)
        mixup = PairDraws(whole, (1 - lam).float(), lam.float())
        if not augment.cutmix_alpha:
            return mixup
    center = (
        integers(draw(ids, seed, epoch, Purpose.MIX_BOX_Y), height),
        integers(draw(ids, seed, epoch, Purpose.MIX_BOX_X), width),
    )
    side = (1 - beta_quantiles(augment.cutmix_alpha, NUM_QUANTILES)[quantile]).sqrt()
    boxes = around(center, ((side * height).long(), (side * width).long()), size)
    # The box is of whole pixels and clipped, so the share follows from its area and not from lambda.
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    cutmix = PairDraws(boxes, torch.ones(len(ids)), (1 - area.double() / (height * width)).float())
    if mixup is None:
        return cutmix
    chosen = uniform(draw(ids, seed, epoch, Purpose.MIX_CHOICE)) < 0.5
    return PairDraws(
        torch.where(chosen[:, None], cutmix.boxes, mixup.boxes),
        torch.where(chosen, cutmix.partner_weight, mixup.partner_weight),
        torch.where(chosen, cutmix.own_weight, mixup.own_weight),
    )


def mix_pairs_(x: Tensor, weight: Tensor, scratch: Tensor | None = None) -> None:
    """In place on float32 (2P, C, H, W): (1 - w) * own + w * partner for `weight` (P, 1, H, W) or (P, 1, 1, 1).

    Exact for whole-number pixels (0..255) where the weight is 0 or 1. `scratch` is a kept (P, C, H, W).
    """
    first, second = x[::2], x[1::2]
    # `addcmul` would be a pass less, but is a fused multiply-add on some processors only.
    difference = torch.sub(second, first, out=scratch).mul_(weight)
    first.add_(difference)
    second.sub_(difference)


class BoxExchange:
    """CutMix on uint8 pictures: the two of a pair exchange the bytes of a box, as (a ^ b) & mask applied to both.

    A quarter of the traffic of `mix_pairs_`, and the sides of the masks are made once an epoch. `pitch`: how many bytes
    after a row of the pictures the next begins.
    """

    def __init__(self, height: int, width: int, *, pitch: int, num_pairs: int, device: torch.device) -> None:
        self._height, self._pitch = height, pitch
        self._span = (height - 1) * pitch + width  # from the first byte of a channel to its last
        self._mask = torch.empty((num_pairs, height, pitch), dtype=torch.uint8, device=device)
        self._difference = torch.empty((num_pairs, 3, self._span), dtype=torch.uint8, device=device)

    def sides(self, draws: PairDraws) -> tuple[Tensor, Tensor]:
        """uint8 (P, H, 1) and (P, 1, pitch) for all pairs of an epoch: where both are 255 a pixel is exchanged."""
        boxes = torch.where(draws.partner_weight.unsqueeze(1) == 1, draws.boxes, 0)
        rows, columns = (side.to(torch.uint8).mul_(255) for side in inside(boxes, self._height, self._pitch))
        return rows.unsqueeze(2), columns.unsqueeze(1)

    def __call__(self, x: Tensor, rows: Tensor, columns: Tensor) -> None:
        """In place on uint8 (2P, 3, H, W), dense but for the pitch; rows and columns are those of its pairs."""
        count = len(rows)
        mask = torch.bitwise_and(rows, columns, out=self._mask[:count]).flatten(1)[:, None, : self._span]
        # Whole channels as one range of bytes, what lies between the rows included: short rows would cost more.
        size, stride = (count, 3, self._span), (2 * x.stride(0), x.stride(1), 1)
        first, second = (x.as_strided(size, stride, x.storage_offset() + i * x.stride(0)) for i in range(2))
        difference = torch.bitwise_xor(first, second, out=self._difference[:count]).bitwise_and_(mask)
        first.bitwise_xor_(difference)
        second.bitwise_xor_(difference)


class PairMixer:
    """Mixes chunks in the stream: boxes as bytes where pictures are bytes still, the rest as float32 (0..255).

    Blanked pixels (cutout, erasing by the mean) are not bytes, so with these CutMix is done in float32 too, by masks.
    """

    def __init__(
        self, augment: Augment, size: tuple[int, int], *, pitch: int, chunk: int, block: int, device: torch.device
    ) -> None:
        blanked = blanks(augment)
        self._size = size
        self._boxes = None
        if augment.cutmix_alpha > 0 and not blanked:
            self._boxes = BoxExchange(*size, pitch=pitch, num_pairs=chunk // 2, device=device)
        self._by_masks = augment.cutmix_alpha > 0 and blanked
        self._difference = None
        if augment.mixup_alpha > 0 or blanked:
            self._difference = torch.empty((block // 2, 3, *size), device=device)

    def start_epoch(self, draws: PairDraws) -> None:
        """Take the draws of an epoch."""
        self._draws, self._weight = draws, draws.partner_weight
        if self._boxes is not None:
            self._rows, self._columns = self._boxes.sides(draws)
            self._weight = torch.where(draws.partner_weight == 1, 0.0, draws.partner_weight)  # these are exchanged

    def exchange_(self, x: Tensor, start: int, stop: int) -> None:
        """In place on uint8 (n, 3, H, W), the pictures of the epoch's positions [start, stop)."""
        if self._boxes is not None:
            pairs = slice(start // 2, stop // 2)
            self._boxes(x, self._rows[pairs], self._columns[pairs])

    def blend_(self, x: Tensor, start: int, stop: int) -> None:
        """In place on float32 (n, 3, H, W) of 0..255, the pictures of the epoch's positions [start, stop)."""
        if self._difference is None:
            return
        pairs = slice(start // 2, stop // 2)
        weight = self._weight[pairs].view(-1, 1, 1, 1)
        if self._by_masks:
            rows, columns = mask_sides(self._draws.boxes[pairs], self._size, self._weight[pairs])
            weight = rows * columns
        mix_pairs_(x, weight, self._difference[: len(weight)])


def soft_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    own_weight: Tensor | None = None,
    smoothing: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean over (b, classes) logits of own_weight * CE(label) + (1 - own_weight) * CE(partner's label); a scalar.

    `own_weight` (b,) or None for unmixed samples; the partner of position 2i is 2i+1 and the reverse. Of
    `weight` (classes,), as torch's CrossEntropyLoss takes it, the divisor is in it already (see `Batch`).
    """
    if own_weight is None and weight is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    cross_entropy = partial(F.cross_entropy, weight=weight, label_smoothing=smoothing, reduction="none")
    own = cross_entropy(logits, labels)
    if own_weight is not None:
        other = cross_entropy(logits, labels.view(-1, 2).flip(1).reshape(-1))
        own = torch.lerp(other, own, own_weight.to(own.dtype))
    return own.mean()
