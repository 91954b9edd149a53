"""How large a recipe's model is and how long a run takes, from answers that are kept or, if asked for, new."""

from __future__ import annotations

from dataclasses import dataclass

from cifar_lab.data.sizes import data_sizes
from cifar_lab.errors import UserError
from cifar_lab.planning.hardware import Setup
from cifar_lab.planning.inputs import kept_footprint
from cifar_lab.planning.kept_answer import Question
from cifar_lab.planning.make import make_plan
from cifar_lab.recipe import Recipe


@dataclass(frozen=True)
class Cost:
    """None is what is not known; `seconds` of a run by the plan's fastest way; `problem` why there is none."""

    num_parameters: int | None = None
    seconds: float | None = None
    problem: str | None = None


def cost(recipe: Recipe, setup: Setup, *, measure: bool) -> Cost:
    """Without `measure` at once, from what was measured before."""
    try:
        sizes = data_sizes(recipe)
        if sizes is None:
            return Cost(problem="the data's sizes are not known")
        if not measure and kept_footprint(recipe, sizes) is None:
            size = Question.about(
                recipe.model, "models.size", num_classes=sizes.num_classes, image_size=sizes.image_size
            ).kept()
            return Cost(None if size is None else size.get("num_parameters"))
        plan = make_plan(recipe, setup)
    except UserError as error:
        return Cost(problem=str(error).splitlines()[0])
    if plan.fastest is None:
        return Cost(plan.footprint.num_parameters, problem="does not fit")
    return Cost(plan.footprint.num_parameters, plan.fastest.timing.step * plan.schedule.total_steps)
