"""What is wrong with a recipe, and the words for near misses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`, whatever its case; None when nothing comes near."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` (did you mean ...?)`, or nothing."""
    choice = nearest(word, choices)
    return f" (did you mean `{choice}`?)" if choice else ""
