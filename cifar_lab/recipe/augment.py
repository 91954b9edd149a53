"""The section `data.augment` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cifar_lab.recipe.section import Fraction, NonNegativeFloat, NonNegativeInt, Part, Section, identity


class Augment(Section):
    """Augmentation of training pictures; every draw depends on (seed, epoch, sample id, purpose) alone."""

    crop_padding: NonNegativeInt = identity(0, "Pixels of padding on each side before the random crop.")
    padding_mode: Literal["zero", "reflect"] = identity("zero", "Values of the padding.")
    flip: bool | Literal["alternating"] = identity(
        False, "Horizontal flip: true draws each epoch, `alternating` flips every other epoch (arXiv 2404.00498)."
    )
    cutout: NonNegativeInt = identity(
        0,
        "Side in source pixels of the square that is set to the mean; an odd side is one less (arXiv 1708.04552).",
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
