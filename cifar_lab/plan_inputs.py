"""What a plan starts from: the sizes of the data, and the model's footprint, measured by a child process and kept."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cifar_lab import atomic
from cifar_lab.planning.footprint import Footprint
from cifar_lab.planning.hardware import PlanError
from cifar_lab.planning.memory import Pictures
from cifar_lab.recipe import Recipe
from cifar_lab.rundir import cache_root


@dataclass(frozen=True)
class DataSizes:
    """Pictures of each split that a recipe uses, their classes, and their sides in pixels before and after resizing."""

    num_train: int
    num_val: int
    num_test: int
    num_classes: int
    source_size: int
    image_size: int


def data_sizes(recipe: Recipe) -> DataSizes:
    """What the source knows without reading. Raises PlanError where it knows nothing, or too much is asked for."""
    data = recipe.data
    info = importlib.import_module(f"cifar_lab.data.sources.{data.name}").info(**data.args)
    if info is None:
        raise PlanError(
            f"data.name={data.name}: its sizes are known only after the data are read, so nothing can be planned; "
            "plan with a source of known sizes (data.name=cifar10) and the same data.image_size"
        )
    left = info.num_train - data.val_size
    if left < (data.limit or 1):
        raise PlanError(f"data.val_size={data.val_size} and data.limit leave no images of {info.num_train}: lower them")
    return DataSizes(
        num_train=data.limit or left,
        num_val=data.val_size,
        num_test=data.test_limit or info.num_test,
        num_classes=info.num_classes,
        source_size=info.image_size,
        image_size=data.image_size or info.image_size,
    )


def pictures_of(recipe: Recipe, sizes: DataSizes) -> Pictures:
    """What the streams of a run keep on the device."""
    return Pictures(
        num=sizes.num_train + sizes.num_val + sizes.num_test,
        source=sizes.source_size,
        image_size=sizes.image_size,
        eval_batch=recipe.eval.batch,
        has_validation=sizes.num_val > 0,
    )


def model_footprint(recipe: Recipe, sizes: DataSizes) -> Footprint:
    """The footprint as a child process measures it, or as one did before: torch takes seconds to import.

    Raises PlanError where the model cannot be built.
    """
    question, kept = _question(recipe, sizes)
    found = _kept(kept)
    if found is not None:
        return found
    command = [sys.executable, "-m", "cifar_lab.plan_activations"]
    child = subprocess.run(command, input=question, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        raise PlanError(f"the model cannot be measured: {(child.stderr.strip().splitlines() or ['?'])[-1]}")
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    if "error" in answer:
        raise PlanError(answer["error"])
    with suppress(OSError):  # an answer that cannot be kept is measured again
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(kept, answer)
    return Footprint.from_json(answer)


def kept_footprint(recipe: Recipe, sizes: DataSizes) -> Footprint | None:
    """The footprint if it was measured before; never starts a process."""
    return _kept(_question(recipe, sizes)[1])


def _question(recipe: Recipe, sizes: DataSizes) -> tuple[str, Path]:
    """What the child is asked, and where its answer is kept."""
    # Which weights a model starts from does not change its size.
    model = recipe.model.model_dump(mode="json") | {"pretrained": False, "weights": None}
    question = json.dumps(
        {
            "model": model,
            "num_classes": sizes.num_classes,
            "image_size": sizes.image_size,
            "precision": recipe.train.precision,
        },
        sort_keys=True,
    )
    name = hashlib.sha256((question + _code()).encode()).hexdigest()[:32]
    return question, cache_root() / "footprint" / f"{name}.json"


def _kept(path: Path) -> Footprint | None:
    try:
        return Footprint.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _code() -> str:
    """Changes when the code that builds and measures models may."""
    package = Path(__file__).parent
    files = [package / f"{name}.py" for name in ("model_factory", "plan_activations", "mixing", "planning/footprint")]
    files += sorted((package / "models").glob("*.py"))
    return "".join(file.read_text(encoding="utf-8") for file in files) + version("torch") + version("timm")
