"""Small recipes on the drawn data set, for tests of the loop."""

from __future__ import annotations

import copy
from typing import Any

BASE: dict[str, Any] = {
    "name": "small",
    "data": {
        "name": "shapes",
        "args": {"num_train": 400, "num_test": 60, "image_size": 16},
        "val_size": 80,
        "augment": {"crop_padding": 2, "flip": True},
    },
    "model": {"name": "vit", "args": {"width": 32, "depth": 2, "heads": 2, "patch_size": 4}},
    "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup_epochs": 0.2},
    "train": {"epochs": 1, "global_batch": 16},
    "log": {"every_steps": 1},
}


def small(**overrides: Any) -> dict[str, Any]:
    """The mapping of a small recipe; keys are dotted with `__`, such as train__micro_batch=8."""
    recipe = copy.deepcopy(BASE)
    for key, value in overrides.items():
        *path, last = key.split("__")
        section = recipe
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return recipe


def with_batch_norm(**overrides: Any) -> dict[str, Any]:
    """A net with batch norm, dropout and drop path, and mixing on."""
    model = {"name": "timm_zoo", "args": {"arch": "test_efficientnet", "drop_rate": 0.2, "drop_path": 0.1}}
    return small(
        model=model, data__augment__mixup_alpha=0.4, data__augment__cutmix_alpha=1.0, optim__lr=1e-3, **overrides
    )
