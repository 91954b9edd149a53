"""Which layers make a sample's result depend on the micro-batch that it is in."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def coupling_layers(model: nn.Module) -> list[str]:
    """Types of the layers of `model` through which another size of the micro-batch gives another result.

    Batch norm, and whatever drops at random, since it draws once for a whole micro-batch. Not mixing: its pairs and
    draws are those of the epoch's order, the same in every layout.
    """
    return sorted({type(layer).__name__ for layer in model.modules() if _normalises(layer) or _drops(layer)})


def _normalises(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) or getattr(layer, "running_var", None) is not None


def _drops(layer: nn.Module) -> bool:
    """A rate above 0: `p` or `prob` of a layer that drops by its name, or what any layer calls drop...: timm, torch."""
    named = ("p", "prob") if re.search("drop|stochasticdepth", type(layer).__name__.lower()) else ()
    rates = [value for name, value in vars(layer).items() if "drop" in name.lower() or name in named]
    return any(isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate > 0 for rate in rates)
