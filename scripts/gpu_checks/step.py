"""Step: each optimizer, clipped or not, with a NaN on the way, against a plain loop in double precision."""

from __future__ import annotations

from typing import Any

import torch

from cifar_lab.data.stream import Batch
from gpu_checks.check import Found, Place
from gpu_checks.runs import DoublePrecision, make_world, session, small, state_of, take_steps, trained_weights

BAD, STEPS = 2, 5
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.05, "nesterov": True, "weight_decay": 0.05},
    # With a usual `eps` a first step is the gradient's sign, which noise turns round where the gradient is small.
    "adamw": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.5, "eps": 1e-3},
    "muon": {"name": "muon", "lr": 0.02, "momentum": 0.6, "nesterov": True, "head_lr": 0.05, "bias_lr": 0.05},
}
# Of the way that the weights went. Rounding chooses among equal pixels of a max pooling, and so moves a gradient by a
# thousandth; muon's products are bf16 but on CPUs.
TOLERANCE, MUON_ON_BF16 = 0.03, 0.1


def step(place: Place, found: Found) -> None:
    """The weights after five steps, one of them skipped, and that this one left every bit as it was."""
    for name, optim in OPTIMIZERS.items():
        largest, changed, wrong = 0.0, 0, 0
        for clip in (None, 0.3):
            mapping = small(
                data__args__num_train=320,
                optim=optim,
                train={"steps": STEPS, "global_batch": 32, "micro_batch": 16, "grad_clip": clip, "ema_decay": 0.9},
            )
            mapping["train"] |= {"on_nonfinite": "skip", "label_smoothing": 0.1}
            with session(mapping, place.folder / f"{name}-{clip}", make_world(place.device)) as made:
                if place.on_cpu:
                    made.engine.guard.reads = False  # as on an accelerator: clip and skip inside of the kernels
                plain = DoublePrecision(made, bad=(BAD,))
                take_steps(made, range(BAD))
                before = state_of(made)
                take_steps(made, [BAD], _spoil)
                changed += sum(not torch.equal(t, before[n]) for n, t in state_of(made).items() if n[:4] != "ema:")
                take_steps(made, range(BAD + 1, STEPS))
                plain.take_steps(range(1))
                first = plain.weights()  # muon has brought its kernels to their norm
                plain.take_steps(range(1, STEPS))
                way = (plain.weights() - first).norm()
                largest = max(largest, ((trained_weights(made) - plain.weights()).norm() / way).item())
                health, _ = made.engine.health([torch.zeros((), device=made.world.device)] * 2)
                wrong += (health.skipped, health.first_bad_step) != (1, BAD)
        limit = MUON_ON_BF16 if name == "muon" and not place.on_cpu else TOLERANCE
        found.at_most(f"{name} off by", largest, limit)
        found.holds(f"{name}: a skipped step changes no bit ({changed} tensors changed)", changed == 0)
        found.holds(f"{name}: one step is skipped, and named", wrong == 0)


def _spoil(step: int, batch: Batch) -> None:
    batch.images[0, 0, 0, 0] = float("nan")
