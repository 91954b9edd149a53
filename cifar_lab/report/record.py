"""A run as the report sees it, and in what recipes of runs differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_lab.recipe import Recipe, identity_fields
from cifar_lab.report.curves import Metrics, number

NOT_A_DIFFERENCE = ("name", "seed")
SEED_AND_ID = re.compile(r"(\d+)-([0-9a-f]{8})(?:\.(\d+))?")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels, predictions and confidences of the test split, and a digest of which pictures these were."""

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float64]
    digest: int


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run directory; what is missing is empty, what is damaged is empty and named in `problems`."""

    path: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    predictions: Predictions | None = None
    fingerprint: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The recipe's name, else that of the folder above."""
        name = self.recipe.get("name")
        return name if isinstance(name, str) and name else self.path.parent.name

    @property
    def label(self) -> str:
        """Where the run lies, `resnet18/0-1a2b3c4d`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def seed(self) -> int:
        """The recipe's seed, 0 where it has none."""
        seed = self.recipe.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else 0

    @property
    def repeat(self) -> int:
        """2, 3, ... of the second and third run of the same seed."""
        match = SEED_AND_ID.fullmatch(self.path.name)
        return int(match[3] or 1) if match else 1

    @property
    def updated(self) -> float:
        """When its status was written last, in Unix seconds; 0 where that is not known."""
        return float(np.nan_to_num(number(self.status.get("updated"))))

    @property
    def state(self) -> str:
        """State of status.json, told apart as far as it can be; `corrupt` when anything could not be read."""
        if self.problems:
            return "corrupt"
        state = self.status.get("state")
        if state == "failed" and "not finite" in str(self.status.get("reason")):
            return "diverged"
        return str(state) if state else "not started"

    @property
    def counts(self) -> bool:
        """Whether the run has a final result that can be trusted."""
        completed = self.status.get("state") == "completed"
        return completed and bool(self.recipe) and self.test_error is not None and self.test_count > 0

    @property
    def test_error(self) -> float | None:
        """Share of wrong test pictures, by the summary."""
        return self._error(self.summary.get("test"))

    @property
    def val_error(self) -> float | None:
        """Share of wrong validation pictures: the summary's, else the latest in metrics.jsonl."""
        error = self._error(self.summary.get("val"))
        if error is not None:
            return error
        accuracy = self.metrics.last("val", "accuracy")
        return None if accuracy is None or not 0 <= accuracy <= 1 else 1 - accuracy

    @property
    def test_count(self) -> int:
        """Number of test pictures."""
        test = self.summary.get("test")
        count = number(test.get("count")) if isinstance(test, dict) else np.nan
        return int(count) if count > 0 else 0

    @property
    def reason(self) -> str | None:
        """Why the run has no final numbers, as far as it is known."""
        if self.problems:
            return "; ".join(self.problems)
        if self.status.get("state") == "completed":
            return None if self.counts else "summary.json has no test result"
        reason = self.status.get("reason")
        return f"{self.progress}: {reason}" if reason else self.progress

    @property
    def progress(self) -> str:
        """How far the run came."""
        step, total = number(self.status.get("step")), number(self.status.get("total_steps"))
        if total > 0 and step >= 0:
            return f"at step {step:.0f} of {total:.0f}"
        logged = self.metrics.last("train", "step")
        return "nothing logged yet" if logged is None else f"at step {logged:.0f}"

    def figure(self, key: str) -> float | None:
        """A number of the summary."""
        value = number(self.summary.get(key))
        return None if np.isnan(value) else value

    def word(self, key: str) -> str | None:
        """A text of the summary."""
        value = self.summary.get(key)
        return value if isinstance(value, str) else None

    @staticmethod
    def _error(section: object) -> float | None:
        accuracy = number(section.get("accuracy")) if isinstance(section, dict) else np.nan
        return 1 - accuracy if 0 <= accuracy <= 1 else None


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key, of whatever a recipe.yaml holds."""
    leaves: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        elif value != {}:
            leaves[f"{prefix}{key}"] = value
    return leaves


def fields(record: RunRecord) -> dict[str, Any]:
    """What makes the run's experiment and is not at its default, by dotted key."""
    try:
        return identity_fields(Recipe.model_validate(record.recipe))
    except (ValueError, TypeError, OverflowError):  # of another version
        return flat(record.recipe)


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys whose values are not the same in all flat recipes, in their order."""
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [
        key
        for key in keys
        if key not in NOT_A_DIFFERENCE and any(recipe.get(key) != recipes[0].get(key) for recipe in recipes[1:])
    ]
