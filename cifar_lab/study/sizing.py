"""A study's file: which recipes it runs, at what size, with which seeds, how long each takes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cifar_lab.cli.printable import shown
from cifar_lab.errors import UsageError
from cifar_lab.recipe.errors import did_you_mean
from cifar_lab.recipe.yaml_text import parse_yaml

HERE = Path(__file__).resolve().parent
SCALES = ("cpu", "laptop", "full")


def _checked(text: str) -> str:
    for word in shlex.split(text):
        if "=" not in word:
            raise ValueError(f"{word!r} is not an override such as train.epochs=2")
        if word.startswith("seed="):
            raise ValueError("the seed is the study's: use `seeds`")
    return text


Overrides = Annotated[str, AfterValidator(_checked)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Part):
    """One recipe of a study. Its key is the name of the runs; overrides are those of all, its group's, its own."""

    recipe: str | None = Field(None, description="Name of a recipe below recipes/; null: the entry's key.")
    group: str | None = Field(None, description="One of `groups`.")
    overrides: Overrides = Field("", description="Overrides as on a command line, separated by spaces.")
    seeds: Seeds | None = Field(None, description="Instead of the study's.")
    minutes: float | None = Field(None, gt=0, description="Expected for one run, start and evaluation included.")
    slurm: str = Field("", description="Options of launch/submit.py for this recipe.")


class Study(_Part):
    """The whole file."""

    about: str = Field(..., min_length=1, description="One line: what this scale is for.")
    seeds: Seeds = Field([0], description="Seeds of every entry that names no others.")
    overrides: Overrides = Field("", description="Overrides of every run.")
    groups: dict[str, Overrides] = Field({}, description="Overrides that several entries share, by name.")
    runs: dict[str, Entry] = Field(..., min_length=1, description="The entries in the order in which they run.")

    @model_validator(mode="after")
    def _groups_exist(self) -> Study:
        for name, entry in self.runs.items():
            if entry.group is not None and entry.group not in self.groups:
                near = did_you_mean(entry.group, self.groups)
                raise ValueError(f"runs.{name}.group: there is no group {entry.group!r}{near}")
        return self

    def words(self, name: str, weights: str) -> list[str]:
        """An entry's overrides without its seed, the last of each key; `{weights}` becomes the folder of that name."""
        entry = self.runs[name]
        parts = [self.overrides, self.groups[entry.group] if entry.group else "", entry.overrides]
        words = [word.replace("{weights}", weights) for part in parts for word in shlex.split(part)]
        words += [] if entry.recipe in (None, name) else [f"name={name}"]
        return list({word.partition("=")[0]: word for word in words}.values())

    def lacks(self, name: str, weights: str) -> str | None:
        """The file of published weights that an entry starts from, if it is not there."""
        named = [word.removeprefix("model.weights=") for word in self.words(name, weights) if "model.weights=" in word]
        return next((file for file in named if not Path(file).exists()), None)

    def chosen(self, only: Sequence[str]) -> list[str]:
        """Names of entries, all without `only`; each of `only` is an entry or a group. Raises UsageError."""
        known = [*self.runs, *self.groups]
        for word in only:
            if word not in known:
                raise UsageError(f"--only {shown(word)}{did_you_mean(word, known)}: there are {', '.join(known)}")
        return [name for name, entry in self.runs.items() if not only or name in only or entry.group in only]


def read_study(scale: str) -> Study:
    """The study of a scale, or of the file of that name. Raises UsageError with every problem, each with its line."""
    path = HERE / f"{scale}.yaml" if scale in SCALES else Path(scale)
    if path.suffix not in (".yaml", ".yml"):
        near = did_you_mean(scale, SCALES)
        raise UsageError(f"--scale {shown(scale)}: there are {', '.join(SCALES)}{near}, or name a FILE.yaml")
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(path)} cannot be read: {error}") from None
    problems = list(document.problems)
    try:
        if not problems:
            return Study.model_validate(document.value)
    except ValidationError as error:
        for found in error.errors():
            keys = list(accumulate(map(str, found["loc"]), "{}.{}".format))
            line = next((document.lines[key] for key in reversed(keys) if key in document.lines), 1)
            problems.append((line, "".join(keys[-1:]), found["msg"].removeprefix("Value error, ")))
    told = [f"{shown(path)}:{line}: {key}{': ' if key else ''}{said}" for line, key, said in problems]
    raise UsageError("\n".join(told))
