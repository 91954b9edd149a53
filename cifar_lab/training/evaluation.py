"""Measuring a split: every sample counts exactly once, whatever the world size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lab.data.stream import EvalStream
from cifar_lab.recipe.schema import TestTimeAugmentation
from cifar_lab.runtime.world import World


@dataclass(frozen=True)
class Predictions:
    """One entry a sample, in the order of their ids (int64); confidence is the probability of the prediction."""

    ids: Tensor
    labels: Tensor
    predictions: Tensor
    confidences: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy and share of correct predictions over `count` samples."""

    loss: float
    accuracy: float
    count: int
    predictions: Predictions | None = None


def views(images: Tensor, tta: TestTimeAugmentation) -> list[tuple[float, Tensor]]:
    """Weights (their sum is 1) and images (b, 3, s, s) to average over: the pictures, mirror images, translations."""
    shifted = [images]
    weights = [1.0]
    if tta == "translate":
        size = images.size(-1)
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        shifted += [padded[..., :size, :size], padded[..., 2:, 2:]]
        weights = [0.5, 0.25, 0.25]
    if not tta:
        return list(zip(weights, shifted, strict=True))
    return [
        (weight / 2, view) for weight, image in zip(weights, shifted, strict=True) for view in (image, image.flip(-1))
    ]


def evaluate(
    predict: Callable[[Tensor], Tensor],
    world: World,
    stream: EvalStream,
    *,
    tta: TestTimeAugmentation = False,
    keep: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Evaluation | None:
    """Measure `stream` by `predict`: float32 logits (b, num_classes) of images (b, 3, s, s). Collective.

    With `tta` logits are averaged over the `views` of a picture. `keep` also returns each sample's
    prediction. None if `stop`, which is asked after every batch and must answer alike on all ranks, said so.
    """
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    counts = torch.zeros(2, dtype=torch.int64, device=world.device)  # correct, all
    kept: list[Tensor] = []
    for batch in stream:
        logits = torch.stack([weight * predict(view) for weight, view in views(batch.images, tta)]).sum(0)
        real = batch.weight
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        loss += torch.where(real > 0, losses, 0).double().sum()
        predicted = logits.argmax(dim=1)
        counts += torch.stack([((predicted == batch.labels) * real).sum(), real.sum()])
        if keep:
            confidence = logits.softmax(dim=1).gather(1, predicted[:, None]).squeeze(1)
            kept.append(torch.stack([t.double() for t in (batch.ids, batch.labels, predicted, confidence, real)]))
        if stop is not None and stop():
            return None
    loss, counts = world.sum_(loss), world.sum_(counts)
    correct, count = counts.tolist()
    predictions = _collect(world, torch.cat(kept, dim=1)) if keep else None
    return Evaluation(float(loss) / count, correct / count, count, predictions)


def _collect(world: World, columns: Tensor) -> Predictions:
    """Join (5, n) columns of all ranks, without padding, sorted by sample id."""
    rows = world.gather(columns.T).cpu()
    rows = rows[rows[:, 4] > 0]
    rows = rows[rows[:, 0].argsort()]
    ids, labels, predicted = (rows[:, i].long() for i in range(3))
    return Predictions(ids, labels, predicted, rows[:, 3].float())
