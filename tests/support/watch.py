"""Look into the loop: what reaches the model, what the optimizer does to the weights, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cifar_lab.training.loop import fit
from cifar_lab.training.session import Session


@dataclass
class Watched:
    """One entry a forward pass (`images` to `losses`) or a step (`lr` to `weights`)."""

    session: Session
    images: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    own_weight: list[Tensor | None] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grads: list[dict[str, Tensor]] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)  # starts with those before the first step

    def update(self, step: int) -> dict[str, Tensor]:
        """What step number `step` (from 0) added to each weight."""
        before, after = self.weights[step : step + 2]
        return {name: after[name] - before[name] for name in before}


def watched(session: Session) -> Watched:
    """Train `session` to its end and close it."""
    seen, engine = Watched(session), session.engine
    forward_backward, step = engine.forward_backward, engine.step

    def note_forward(module, arguments, output):
        if module.training:
            seen.images.append(arguments[0].detach().clone(memory_format=torch.preserve_format))
            seen.logits.append(output.detach().float().clone())

    def note_batch(batch, **how):
        seen.labels.append(batch.labels.clone())
        seen.own_weight.append(None if batch.own_weight is None else batch.own_weight.clone())
        loss = forward_backward(batch, **how)
        seen.losses.append(float(loss))
        return loss

    def note_step(number, lr):
        seen.lr.append(lr)
        seen.grads.append({name: p.grad.clone() for name, p in engine.module.named_parameters()})
        step(number, lr)
        seen.weights.append(_weights(engine.module))

    seen.weights.append(_weights(engine.module))
    engine.forward_backward, engine.step = note_batch, note_step
    handle = engine.module.register_forward_hook(note_forward)
    assert fit(session)
    handle.remove()
    session.saver.wait()
    session.close()
    return seen


def norm(tensors: dict[str, Tensor]) -> float:
    """Euclidean norm over all tensors."""
    return float(torch.linalg.vector_norm(torch.stack([t.double().norm() for t in tensors.values()])))


def _weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}
