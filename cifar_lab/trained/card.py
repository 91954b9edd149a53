"""README.md of an exported model: what it is and how good, in numbers that were measured, and what is not known."""

from pathlib import Path
from typing import Any

import jinja2

from cifar_lab.recipe import Recipe, to_yaml
from cifar_lab.recipe.schema import Tracking
from cifar_lab.recipe.yaml_text import scalar
from cifar_lab.trained.model import SavedModel


def model_card(saved: SavedModel, library: str, **facts: Any) -> str:
    """Markdown with the hub's header and how `library` loads the exported files; `facts` are for that section."""
    run, recipe = saved.run, _public(saved.recipe)
    name = recipe.name if run is not None else saved.description.name
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cifar_lab.trained", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2").render(
        run=run,
        recipe=recipe,
        recipe_text=to_yaml(recipe).rstrip(),
        model=saved.description,
        summary=(run.summary() if run is not None else None) or {},
        env=run.env() if run is not None else {},
        name=name,
        name_in_yaml=name if isinstance(scalar(name), str) else f'"{name}"',
        library=library,
        **facts,
    )


def _public(recipe: Recipe) -> Recipe:
    """Without what is this machine's and this team's own: folders and where it was tracked."""
    weights = recipe.model.weights and Path(recipe.model.weights).name
    changes = {
        "data": recipe.data.model_copy(update={"root": None}),
        "model": recipe.model.model_copy(update={"weights": weights}),
        "tracking": Tracking(),
    }
    return recipe.model_copy(update=changes)
