"""What every section of a recipe is made of: the types of its fields, and whether a field changes the result."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
# YAML has lists only; `strict` would refuse them for a tuple.
PositiveFloats = Annotated[tuple[PositiveFloat, ...], Field(strict=False, min_length=1)]


def per_channel(values: tuple[float, ...]) -> tuple[float, ...]:
    """One value for each of red, green and blue; a single one is all channels'. Raises ValueError."""
    if len(values) not in (1, 3):
        raise ValueError("give three values (red, green, blue) or one for all")
    return values * (3 // len(values))


def operational(default: Any, description: str) -> Any:
    """A field that does not change the result and so is not part of the run's identity."""
    return Field(default, description=description, json_schema_extra={"operational": True})


def identity(default: Any, description: str) -> Any:
    """A field that changes the result."""
    return Field(default, description=description)


class Section(BaseModel):
    """Frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
