"""Measuring a split: every sample counts exactly once, whatever the world size."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lab.cli.printable import error_rate
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

    def __str__(self) -> str:
        """For people, such as `error 19.72 % (accuracy 80.28 %) of 10,000 pictures, loss 0.6305`."""
        return f"{error_rate(self.accuracy)} of {self.count:,} pictures, loss {self.loss:.4f}"


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
    columns: list[tuple[Tensor, Tensor]] = []
    for batch in stream:
        logits = torch.stack([weight * predict(view) for weight, view in views(batch.images, tta)]).sum(0)
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        predicted = logits.argmax(dim=1)
        confidence = logits.softmax(dim=1).gather(1, predicted[:, None]).squeeze(1)
        whole = torch.stack([batch.ids, batch.labels, predicted, batch.weight], dim=1)
        columns.append((whole, torch.stack([confidence, losses], dim=1)))
        if stop is not None and stop():
            return None
    # Sums are made on the host: not every device has float64, and in the order of ids no layout changes a digit.
    whole, parts = (world.gather(torch.cat(kind)).cpu() for kind in zip(*columns, strict=True))
    order = whole[:, 0].argsort()
    order = order[whole[order, 3] > 0]  # without padding
    ids, labels, predicted, _ = whole[order].unbind(1)
    confidences, losses = parts[order].unbind(1)
    accuracy, count = float((predicted == labels).double().mean()), len(ids)
    predictions = Predictions(ids, labels, predicted, confidences) if keep else None
    return Evaluation(float(losses.double().mean()), accuracy, count, predictions)
