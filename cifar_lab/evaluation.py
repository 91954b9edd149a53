"""Measuring a split: every sample counts exactly once, whatever the world size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lab.data.stream import EvalStream
from cifar_lab.runtime.engine import Engine


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


def evaluate(
    engine: Engine, stream: EvalStream, *, tta: bool = False, keep: bool = False, stop: Callable[[], bool] | None = None
) -> Evaluation | None:
    """Measure `stream` with the final weights (the moving average if there is one). Collective.

    With `tta` the logits of a picture and of its mirror image are averaged. `keep` also returns each sample's
    prediction. None if `stop`, which is asked after every batch and must answer alike on all ranks, said so.
    """
    device = engine.world.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    counts = torch.zeros(2, dtype=torch.int64, device=device)  # correct, all
    kept: list[Tensor] = []
    engine.average_buffers()
    with engine.use_ema():
        for batch in stream:
            logits = engine.predict(batch.images)
            if tta:
                logits = (logits + engine.predict(batch.images.flip(-1))) / 2
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
    loss, counts = engine.world.sum_(loss), engine.world.sum_(counts)
    correct, count = counts.tolist()
    predictions = _collect(engine, torch.cat(kept, dim=1)) if keep else None
    return Evaluation(float(loss) / count, correct / count, count, predictions)


def _collect(engine: Engine, columns: Tensor) -> Predictions:
    """Join (5, n) columns of all ranks, without padding, sorted by sample id."""
    rows = engine.world.gather(columns.T).cpu()
    rows = rows[rows[:, 4] > 0]
    rows = rows[rows[:, 0].argsort()]
    ids, labels, predicted = (rows[:, i].long() for i in range(3))
    return Predictions(ids, labels, predicted, rows[:, 3].float())
