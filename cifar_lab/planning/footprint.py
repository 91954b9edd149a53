"""What a model occupies, measured once without weights; everything else of a plan is arithmetic on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import TypeAdapter

from cifar_lab.data.sizes import DataSizes, data_sizes
from cifar_lab.errors import UsageError
from cifar_lab.planning import kept_answer
from cifar_lab.recipe import Recipe

Line = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Peak bytes as a function of the batch: the largest of `constant + slope * batch` over `lines`.

    Each line is one moment of a pass, at which some bytes do not depend on the batch (weights cast to bf16, gradients).
    """

    lines: tuple[Line, ...]

    @classmethod
    def of(cls, moments: Iterable[Line]) -> Curve:
        """Keeps only lines that no other one exceeds in both, constant and slope."""
        kept: list[Line] = []
        for constant, slope in sorted(moments, key=lambda line: (-line[1], -line[0])):
            if not kept or constant > kept[-1][0]:
                kept.append((constant, slope))
        return cls(tuple(kept))

    def at(self, batch: int) -> int:
        """Bytes at that batch."""
        return round(max(constant + slope * batch for constant, slope in self.lines))


@dataclass(frozen=True)
class Pass:
    """Training pass of one micro-batch: everything but parameter gradients, and the same with them as they appear."""

    activations: Curve
    with_gradients: Curve


@dataclass(frozen=True)
class Footprint:
    """Elements, bytes and FLOPs of a model at one image size and precision (a multiply-add counts as two).

    `passes` has `plain` and, where the model can recompute, `checkpointed`. `evaluation` is the peak of a forward
    pass without gradients. `small` are the elements in tensors below ZeRO-3's persistence threshold. `gathered` are
    those that FSDP2 holds whole at once: weights and gradients of two of its blocks and of what is in none; with the
    latter these are its `num_groups`.
    """

    num_parameters: int
    num_trainable: int
    num_tensors: int
    largest: int
    small: int
    gathered: int
    num_groups: int
    buffer_bytes: int
    flops_per_image: int
    passes: dict[str, Pass]
    evaluation: Curve


def known_sizes(recipe: Recipe) -> DataSizes:
    """The sizes of the data. Raises UsageError where only the data can tell, and for more pictures than there are."""
    sizes = data_sizes(recipe)
    if sizes is None:
        raise UsageError(
            f"data.name={recipe.data.name}: its sizes are known only after the data are read, so nothing can be "
            "planned; plan with a source of known sizes (data.name=cifar10) and the same data.image_size"
        )
    return sizes


def model_footprint(recipe: Recipe, sizes: DataSizes, *, measure: bool = True) -> Footprint:
    """The footprint as a child process measures it, or as one did before. Raises UsageError."""
    answer = kept_answer.ask(
        "planning.activations", recipe.model, sizes, measure=measure, precision=recipe.train.precision
    )
    return TypeAdapter(Footprint).validate_python(answer)
