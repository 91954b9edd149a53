"""What is wrong with a recipe: problems, pydantic's errors in words, and near misses."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from cifar_lab.errors import UserError


class RecipeError(UserError):
    """All problems of a recipe at once; each names its place, its key and the fix."""

    exit_status = 2

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems
        self.problems = list(problems)
        super().__init__("\n".join(problems))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[list[str]]]:
        return type(self), (self.problems,)  # rank 0 sends its errors to the others


@dataclass(frozen=True)
class Problem:
    """One mistake: the dotted keys it is about (the first one given in the file locates it) and what to do."""

    keys: tuple[str, ...]
    message: str


def grouped(
    details: Iterable[ErrorDetails], names: Callable[[tuple[Any, ...]], Sequence[Any]]
) -> dict[str, list[ErrorDetails]]:
    """pydantic's errors by their dotted key, with the position in a list; members of a union have one each.

    `names` takes from a place the names that lead to a value; what follows are labels of unions and positions.
    """
    found: dict[str, list[ErrorDetails]] = {}
    for detail in details:
        own = names(detail["loc"])
        index = next((part for part in detail["loc"][len(own) :] if isinstance(part, int)), None)
        key = ".".join(map(str, own))
        found.setdefault(key if index is None else f"{key}[{index}]", []).append(detail)
    return found


def said(details: Sequence[ErrorDetails]) -> str:
    """What pydantic says of one value (of a union, each member says something), and what was found."""
    value = details[0]["input"]
    messages = " or ".join(dict.fromkeys(detail["msg"] for detail in details))
    messages = messages.replace("Value error, ", "").replace(" or Input should be", " or")
    messages = messages.replace("a valid boolean", "true or false")
    choices = [
        word for detail in details for word in re.findall("'([^']+)'", detail.get("ctx", {}).get("expected", ""))
    ]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    found = "nothing" if value is None else json.dumps(value, default=repr)
    return f"{messages}, found {found if len(found) <= 60 else found[:57] + '...'}{hint}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`, whatever its case; None when nothing comes near."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` (did you mean ...?)`, or nothing."""
    choice = nearest(word, choices)
    return f" (did you mean `{choice}`?)" if choice else ""
