"""Mixup and CutMix inside of the stream: where in its passes the pairs of a micro-batch are mixed."""

from __future__ import annotations

import torch
from torch import Tensor

from cifar_lab.data.mixing import BoxExchange, PairDraws, mix_pairs_
from cifar_lab.data.rectangles import RectangleMask
from cifar_lab.recipe.schema import Augment


class PairMixer:
    """Mixes chunks of a micro-batch: boxes as bytes where pictures are bytes still, the rest as float32 of 0..255.

    Blanked pixels (cutout, erasing) are not bytes, so with these CutMix is done in float32 too, by masks.
    """

    def __init__(
        self, augment: Augment, size: tuple[int, int], *, pitch: int, chunk: int, block: int, device: torch.device
    ) -> None:
        blanks = augment.cutout > 0 or augment.erase_prob > 0
        self._boxes = None
        if augment.cutmix_alpha > 0 and not blanks:
            self._boxes = BoxExchange(*size, pitch=pitch, num_pairs=chunk // 2, device=device)
        self._mask = RectangleMask(*size, device) if augment.cutmix_alpha > 0 and blanks else None
        self._difference = None
        if augment.mixup_alpha > 0 or blanks:
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
        if self._mask is None:
            weight = self._weight[pairs].view(-1, 1, 1, 1)
        else:
            rows, columns = self._mask.sides(self._draws.boxes[pairs], self._weight[pairs])
            weight = rows * columns
        mix_pairs_(x, weight, self._difference[: len(weight)])
