"""Precision: forty losses in every precision, against double precision on the CPU."""

from __future__ import annotations

from typing import Any

from cifar_lab.recipe import RecipeError, parse_recipe
from gpu_checks.check import Found, Place
from gpu_checks.runs import NETS, DoublePrecision, make_world, session, small, take_steps

STEPS = 40
# Largest difference of any of the losses, which begin at 2.3.
PRECISIONS: dict[str, tuple[dict[str, Any], float]] = {
    "IEEE": ({}, 1e-3),
    "TF32": ({"tf32": True}, 2e-2),
    "bf16": ({"precision": "bf16"}, 1e-1),
    "fp16": ({"precision": "fp16"}, 2e-2),
}
# What the last five losses are below, on average: two batches are learnt.
REACHED = {"convolutions": 1.6, "attention": 1.3}
RECIPES = {
    "convolutions": {"optim__lr": 0.5},
    "attention": {"optim__name": "adamw", "optim__lr": 3e-3, "optim__nesterov": False},
}
TWO_BATCHES: dict[str, Any] = {"data__args__num_train": 128, "data__augment": {}}


def precision(place: Place, found: Found) -> None:
    """A net of convolutions and one of attention, in each precision."""
    expected: dict[str, list[float]] = {}
    for name, (train, limit) in PRECISIONS.items():
        if name == "TF32" and place.device != "cuda":
            found.skip(f"TF32: {place.device} has none")
            continue
        largest = 0.0
        for net in NETS:
            mapping = small(net, train={"steps": STEPS, "global_batch": 64, **train}, **TWO_BATCHES, **RECIPES[net])
            try:
                parse_recipe(mapping)
            except RecipeError as error:
                found.skip(f"{name}: {str(error).splitlines()[0]}")
                break
            with session(mapping, place.folder / f"{name}-{net}", make_world(place.device)) as made:
                if net not in expected:
                    expected[net] = DoublePrecision(made).take_steps(range(STEPS))
                losses = [loss.item() for loss in take_steps(made, range(STEPS))]
            differences = (abs(ours - theirs) for ours, theirs in zip(losses, expected[net], strict=True))
            largest = max(largest, *differences)
            last = sum(losses[-5:]) / 5
            found.holds(f"{name}, {net}: a loss of {REACHED[net]} is reached ({last:.3f})", last < REACHED[net])
        else:
            found.at_most(f"{name} off by", largest, limit)
