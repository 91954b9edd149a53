"""What a plan starts from: the sizes of the data, and the model's footprint, measured by a child process and kept."""

from __future__ import annotations

from pydantic import TypeAdapter

from cifar_lab.data.sizes import DataSizes, data_sizes
from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import PlanError
from cifar_lab.planning.kept_answer import Question
from cifar_lab.recipe import Recipe


def known_sizes(recipe: Recipe) -> DataSizes:
    """The sizes of the data. Raises PlanError where only the data can tell, DataSizesError."""
    sizes = data_sizes(recipe)
    if sizes is None:
        raise PlanError(
            f"data.name={recipe.data.name}: its sizes are known only after the data are read, so nothing can be "
            "planned; plan with a source of known sizes (data.name=cifar10) and the same data.image_size"
        )
    return sizes


def model_footprint(recipe: Recipe, sizes: DataSizes) -> Footprint:
    """The footprint as a child process measures it, or as one did before. Raises NoAnswerError."""
    return TypeAdapter(Footprint).validate_python(_question(recipe, sizes).ask())


def kept_footprint(recipe: Recipe, sizes: DataSizes) -> Footprint | None:
    """The footprint if it was measured before; never starts a process."""
    answer = _question(recipe, sizes).kept()
    return None if answer is None else TypeAdapter(Footprint).validate_python(answer)


def _question(recipe: Recipe, sizes: DataSizes) -> Question:
    return Question.about(
        recipe.model,
        "planning.activations",
        num_classes=sizes.num_classes,
        image_size=sizes.image_size,
        precision=recipe.train.precision,
    )
