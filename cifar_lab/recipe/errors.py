"""What is wrong with a recipe: problems, pydantic's errors in words, and near misses."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
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
    messages = re.sub("a valid (tuple|array)", "a list", messages.replace("a valid boolean", "true or false"))
    choices = [
        word for detail in details for word in re.findall("'([^']+)'", detail.get("ctx", {}).get("expected", ""))
    ]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    forms = _forms(value, {detail["type"] for detail in details})
    if forms:
        hint = f"; write {' or '.join(forms)}{' without quotes' if value in forms else ''}"
    found = "nothing" if value is None else json.dumps(value, default=repr, ensure_ascii=False)
    return f"{messages}, found {found if len(found) <= 60 else found[:57] + '...'}{hint}"


def _forms(value: Any, expected: Collection[str]) -> list[str]:
    """The numbers, or lists of them, that people may mean by a value, as YAML has them; `expected`: pydantic's types.

    `0,05` is 0.05, `10%` is 0.1, `1_024` is 1024, 500.0 is 500; `1,000` is a thousand to some and 1 to others.
    """
    text = re.sub(r"[\s_']", "", str(value)).replace("\N{MINUS SIGN}", "-")
    number, forms = text.removesuffix("%"), []
    for group, point in (",.", ".,"):
        whole = rf"(0|[1-9]\d*|[1-9]\d{{0,2}}(\{group}\d{{3}})+)"
        if re.fullmatch(rf"[-+]?{whole}(\{point}\d*)?(e[-+]?\d{{1,2}})?", number, re.ASCII | re.IGNORECASE):
            form = number.replace(group, "").replace(point, ".")
            forms.append(form if number == text else f"{float(form) / 100:g}")
    if "tuple_type" in expected or "list_type" in expected:
        forms = [f"[{', '.join(re.split('[,;] *', str(value)))}]", *(f"[{form}]" for form in forms)]
    elif "float_type" not in expected:
        forms = [f"{float(form):.0f}" for form in forms if "int_type" in expected and float(form).is_integer()][:1]
    return list(dict.fromkeys(forms)) if type(value) in (str, int, float) and len(text) <= 40 else []


def nearest(word: str, choices: Iterable[str], least: float = 0.66) -> str | None:
    """The choice most like `word`, or the only one that it begins, whatever its case; None when nothing comes near.

    `least` is of difflib's ratio: 0.66 lets one of three letters be wrong.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    word = word.lower()
    begun = [choice for choice in by_lower if len(word) > 2 and choice.startswith(word)]
    found = begun if len(begun) == 1 else difflib.get_close_matches(word, list(by_lower), n=1, cutoff=least)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` (did you mean ...?)`, or nothing."""
    choice = nearest(word, choices)
    return f" (did you mean `{choice}`?)" if choice else ""
