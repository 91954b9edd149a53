"""Weights of classes in the loss: those of torch over the global batch, however it is divided."""

from __future__ import annotations

import pytest
import torch
from support.pictures import make_stream, random_pictures

from cifar_lab.data.mixing import soft_cross_entropy

DATA = random_pictures(60)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("micro_batch", [12, 4, 2])
@pytest.mark.parametrize("mixed", [False, True])
def test_weights_of_classes_are_those_of_torch_over_the_global_batch(
    smoothing: float, micro_batch: int, mixed: bool
) -> None:
    weights = torch.linspace(0.1, 5, DATA.num_classes, dtype=torch.float64)
    augment = {"mixup_alpha": 1.0} if mixed else {}
    stream = make_stream(DATA, augment, micro_batch=micro_batch, class_weights=weights)
    assert stream.global_batch == 12 and len(DATA.labels.unique()) > 3
    logits = torch.randn(12, DATA.num_classes, generator=torch.Generator().manual_seed(0))
    for step in (0, 3, 7):
        losses, labels, shares = [], [], []
        for m in range(12 // micro_batch):
            batch = stream.micro_batch(step, m)
            own = slice(m * micro_batch, (m + 1) * micro_batch)
            losses.append(
                soft_cross_entropy(logits[own], batch.labels, batch.own_weight, smoothing, batch.class_weights)
            )
            labels.append(batch.labels)
            shares.append(torch.ones(micro_batch) if batch.own_weight is None else batch.own_weight)
        label, share = torch.cat(labels), torch.cat(shares)
        partner = label.view(-1, 2).flip(1).reshape(-1)
        each = torch.nn.CrossEntropyLoss(weights.float(), label_smoothing=smoothing, reduction="none")
        mean = torch.nn.CrossEntropyLoss(weights.float(), label_smoothing=smoothing)(logits, label)
        if mixed:  # a picture counts as its two labels, each by its share
            counted = share * weights[label] + (1 - share) * weights[partner]
            mean = (share * each(logits, label) + (1 - share) * each(logits, partner)).sum() / counted.sum()
        assert float(torch.stack(losses).mean()) == pytest.approx(float(mean), rel=1e-6)
