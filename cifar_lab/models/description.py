"""model.json, which a completed run puts beside its weights."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from cifar_lab.errors import UsageError, UserError
from cifar_lab.recipe.outside import settle
from cifar_lab.recipe.section import PositiveFloat, PositiveInt, Section, per_channel

DESCRIPTION = "model.json"


class Description(Section, extra="ignore"):
    """What it takes to build the model again and to feed it; mean and std, one a channel, on the 0..1 scale."""

    format: Literal[1]
    name: str
    args: dict[str, Any]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    image_size: PositiveInt
    source_size: PositiveInt | None = None
    fit: Literal["crop", "pad", "squash"] = "crop"
    interpolation: Literal["bicubic", "bilinear"]
    mean: Annotated[tuple[float, ...], AfterValidator(per_channel)]
    std: Annotated[tuple[PositiveFloat, ...], AfterValidator(per_channel)]

    @property
    def num_classes(self) -> int:
        """Logits of a picture."""
        return len(self.classes)


def read_description(folder: Path) -> Description:
    """The model.json of a folder. Raises UserError, UsageError where there is none."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UsageError(f"{path} is missing: it says how the model is built; copy it there from the run")
    try:
        found = Description.model_validate_json(path.read_bytes())
        return found.model_copy(update={"name": settle(found.name, folder)})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path} is damaged: {': '.join([*map(str, first['loc']), first['msg']])}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
