"""The section `data.augment` of a recipe."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cifar_lab.recipe.section import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    Part,
    PositiveFloat,
    Section,
    identity,
)


def ascending(ends: tuple[float, float]) -> tuple[float, float]:
    """A range whose second end is not below the first. Raises ValueError."""
    if ends[0] > ends[1]:
        raise ValueError("give the smaller end first")
    return ends


class Augment(Section):
    """Augmentation of training pictures; every draw depends on (seed, epoch, sample id, purpose) alone."""

    crop_padding: NonNegativeInt = identity(0, "Pixels of padding on each side before the random crop.")
    padding_mode: Literal["zero", "reflect"] = identity("zero", "Values of the padding.")
    flip: bool | Literal["alternating"] = identity(
        False, "Horizontal flip: true draws each epoch, `alternating` flips every other epoch (arXiv 2404.00498)."
    )
    random_resized_crop: Annotated[tuple[Part, Part], Field(strict=False), AfterValidator(ascending)] | None = identity(
        None,
        "Least and largest area of a random box, parts of the picture's, such as [0.08, 1]; it is resized to "
        "data.image_size, and what follows works on that; null is off (torchvision's RandomResizedCrop).",
    )
    crop_ratio: Annotated[tuple[PositiveFloat, PositiveFloat], Field(strict=False), AfterValidator(ascending)] = (
        identity((3 / 4, 4 / 3), "Least and largest width / height of that box, which is log-uniform.")
    )
    vertical_flip: bool = identity(False, "Vertical flip of half of the pictures, drawn each epoch.")
    rotation: Annotated[float, Field(ge=0, le=180)] = identity(
        0.0, "Largest angle of a random rotation, in degrees; nearest pixels, black outside (RandomRotation)."
    )
    brightness: NonNegativeFloat = identity(
        0.0,
        "Colour jitter: a factor from 1 - b (at least 0) to 1 + b; in the order brightness, contrast, saturation, hue "
        "(torchvision's ColorJitter, which draws the order too).",
    )
    contrast: NonNegativeFloat = identity(0.0, "The same for contrast.")
    saturation: NonNegativeFloat = identity(0.0, "The same for saturation.")
    hue: Annotated[float, Field(ge=0, le=0.5)] = identity(0.0, "The same for hue: a shift by -h to h of its circle.")
    cutout: NonNegativeInt = identity(
        0,
        "Side of the square that is set to the mean, in pixels before the last resize; an odd side is one less "
        "(arXiv 1708.04552).",
    )
    erase_prob: Fraction = identity(0.0, "Probability of random erasing (arXiv 1708.04896).")
    erase_value: Literal["mean", "random"] = identity(
        "mean", "New value of erased pixels: the mean, or (as in the paper) a random byte for each pixel and channel."
    )
    mixup_alpha: NonNegativeFloat = identity(0.0, "Beta(a, a) parameter of mixup; 0 is off (arXiv 1710.09412).")
    cutmix_alpha: NonNegativeFloat = identity(0.0, "Beta(a, a) parameter of CutMix; 0 is off (arXiv 1905.04899).")
    randaugment_ops: NonNegativeInt = identity(0, "RandAugment operations per picture; 0 is off (arXiv 1909.13719).")
    randaugment_magnitude: Annotated[float, Field(ge=0, le=10)] = identity(
        9.0, "RandAugment magnitude, 0 to 10 as in timm: 9 turns by 27 degrees (torchvision's 9, of 0 to 30, by 9)."
    )
    randaugment_prob: Part = identity(1.0, "Probability of each RandAugment operation (timm's `p`).")
    randaugment_std: NonNegativeFloat = identity(0.0, "Deviation of the magnitude, which is then clipped (`mstd`).")
