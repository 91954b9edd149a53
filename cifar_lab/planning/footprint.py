"""What a model occupies, measured once without weights; everything else of a plan is arithmetic on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Line = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Peak bytes as a function of the batch: the largest of `constant + slope * batch` over `lines`.

    Each line is one moment of a pass, at which some bytes do not depend on the batch (weights cast to bf16, gradients).
    """

    lines: tuple[Line, ...]

    @classmethod
    def of(cls, moments: Iterable[Line]) -> Curve:
        """Keeps only the lines that are the largest for some batch of at least 1."""
        best: dict[float, float] = {}
        for constant, slope in moments:
            best[slope] = max(constant, best.get(slope, constant))
        hull: list[Line] = []
        for slope in sorted(best):
            new = (best[slope], slope)
            while hull and (_at(new, 1) >= _at(hull[-1], 1) or (len(hull) > 1 and _covered(hull[-2], hull[-1], new))):
                hull.pop()
            hull.append(new)
        return cls(tuple(hull))

    def at(self, batch: int) -> int:
        """Bytes at that batch."""
        return round(max(_at(line, batch) for line in self.lines))


@dataclass(frozen=True)
class Pass:
    """Training pass of one micro-batch: everything but parameter gradients, and the same with them as they appear."""

    activations: Curve
    with_gradients: Curve


@dataclass(frozen=True)
class Footprint:
    """Elements, bytes and FLOPs of a model at one image size and precision (a multiply-add counts as two).

    `passes` has `plain` and, where the model can recompute, `checkpointed`. `evaluation` is the peak of a forward
    pass without gradients. `small` are the elements in tensors below ZeRO-3's persistence threshold.
    """

    num_parameters: int
    num_trainable: int
    num_tensors: int
    largest: int
    small: int
    buffer_bytes: int
    flops_per_image: int
    passes: dict[str, Pass]
    evaluation: Curve

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Footprint:
        """The inverse of `dataclasses.asdict`."""
        passes = {
            name: Pass(_curve(found["activations"]), _curve(found["with_gradients"]))
            for name, found in content["passes"].items()
        }
        return cls(**{**content, "passes": passes, "evaluation": _curve(content["evaluation"])})


def _curve(content: dict[str, Any]) -> Curve:
    return Curve(tuple((float(constant), float(slope)) for constant, slope in content["lines"]))


def _at(line: Line, batch: float) -> float:
    return line[0] + line[1] * batch


def _covered(low: Line, middle: Line, high: Line) -> bool:
    """Whether `middle`, of a slope between those of the others, is nowhere the largest."""
    meets_high = (low[0] - high[0]) * (middle[1] - low[1])
    meets_middle = (low[0] - middle[0]) * (high[1] - low[1])
    return meets_high <= meets_middle
