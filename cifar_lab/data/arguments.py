"""Arguments that sources of pictures in files share; `recipe/plugins.py` reads them from here."""

from typing import Annotated, Literal

from pydantic import Field

from cifar_lab.recipe.section import PositiveInt

TrainSplit = Annotated[str, Field(description="Split to train on.")]
ValSplit = Annotated[str | None, Field(description="Split to validate on; null: held out of the training pictures.")]
TestSplit = Annotated[str | None, Field(description="Split to test on; null: it has none.")]
ImageColumn = Annotated[str | None, Field(description="Column of the pictures; null: by its type, then name.")]
LabelColumn = Annotated[str | None, Field(description="Column of the labels; null: by its type, then name.")]
Size = Annotated[PositiveInt | None, Field(description="Side to bring pictures to; needed if their sizes differ.")]
Fit = Annotated[
    Literal["crop", "pad", "squash"],
    Field(description="How they come to `size`: their centre square, all of them between black edges, or distorted."),
]
OnBroken = Annotated[
    Literal["error", "skip"], Field(description="What broken pictures are: an error, or left out of the data set.")
]
