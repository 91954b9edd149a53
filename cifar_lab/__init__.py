"""cifar_lab: train image classifiers on CIFAR-10 from recipe YAML files.

`run`, `load_recipe` and `load_model` are imported when they are first asked for: nothing here imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_lab.recipe import load_recipe
    from cifar_lab.train import run
    from cifar_lab.trained.network import load_model

__version__ = "0.2.0"
__all__ = ["__version__", "load_model", "load_recipe", "run"]

_HOMES = {"load_model": "cifar_lab.trained.network", "load_recipe": "cifar_lab.recipe", "run": "cifar_lab.train"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
