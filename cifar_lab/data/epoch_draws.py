"""The draws of one epoch after the other: made on the host, those of the next one by a thread, and uploaded."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cifar_lab.data.distortion import Draws
from cifar_lab.data.mixing import PairDraws
from cifar_lab.data.randaugment import RandAugmentDraws
from cifar_lab.data.rectangles import NoiseDraws


@dataclass(frozen=True)
class EpochDraws:
    """Draws of the N samples that an epoch uses, in its order; None for what the recipe leaves off."""

    index: Tensor  # int64 (N,): row of the ImageSet's pixels
    ids: Tensor  # int64 (N,)
    labels: Tensor  # int64 (N,)
    crop: Any  # what the crop itself drew
    distortion: Draws
    blanks: tuple[Tensor, ...]  # int64 (N, 4) each: rectangles of cutout and random erasing that become the mean
    noise: NoiseDraws | None
    mix: PairDraws | None  # of the N / 2 pairs
    own_weight: Tensor | None  # float32 (N,)
    randaugment: RandAugmentDraws | None
    class_weights: Tensor | None  # float32 (steps, classes): see Batch


class DrawsAhead:
    """Hands out draws on the device; in each epoch but the last of `num_epochs` a thread makes those of the next.

    `draw`, a pure function of the epoch's number (from 0), makes them on the host. What it raises in the thread is
    raised when the epoch is asked for. The thread ends with its work.
    """

    def __init__(self, draw: Callable[[int], EpochDraws], device: torch.device, num_epochs: int) -> None:
        self._draw, self._device, self._num_epochs = draw, device, num_epochs
        self._next: tuple[int, Future[EpochDraws]] | None = None

    def __call__(self, epoch: int) -> EpochDraws:
        """All draws of an epoch, on the device."""
        ahead, self._next = self._next, None
        made = ahead[1].result() if ahead is not None and ahead[0] == epoch else self._make(epoch)
        if epoch + 1 < self._num_epochs:
            worker = ThreadPoolExecutor(1, "draws")
            self._next = epoch + 1, worker.submit(self._make, epoch + 1)
            worker.shutdown(wait=False)
        uploaded: EpochDraws = on_each(made, lambda tensor: tensor.to(self._device, non_blocking=True))
        return uploaded

    def _make(self, epoch: int) -> EpochDraws:
        draws = self._draw(epoch)
        if self._device.type != "cuda":
            return draws
        # From other memory, or not in one piece, an upload would wait for all that the device has to do before.
        pinned: EpochDraws = on_each(draws, lambda tensor: tensor.contiguous().pin_memory())
        return pinned


def on_each(draws: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`draws`, a dataclass or a tuple, with `change` of every tensor in its place; lists stay on the host."""
    if isinstance(draws, Tensor):
        return change(draws)
    if isinstance(draws, tuple):
        return tuple(on_each(part, change) for part in draws)
    if is_dataclass(draws) and not isinstance(draws, type):
        return replace(draws, **{field.name: on_each(getattr(draws, field.name), change) for field in fields(draws)})
    return draws
