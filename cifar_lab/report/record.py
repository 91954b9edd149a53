"""A run as the report sees it, and in what recipes of runs differ."""

import re
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_lab.files.shipped import config_file
from cifar_lab.recipe import Recipe, experiment_id, identity_fields
from cifar_lab.report.balance import balanced_scores
from cifar_lab.report.curves import Metrics, number

NOT_A_DIFFERENCE = ("name", "seed")
SEED_AND_ID = re.compile(r"\d+-([0-9a-f]{8})(\.\d+)?")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels, predictions and their confidences of the test split, and a digest of which pictures these were."""

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    digest: int
    confidences: NDArray[np.float64] | None = None


# Name and fingerprint of another test set, and which of its pictures were wrong: (severities or 1, pictures), 0 to 1.
Evaluations = dict[tuple[str, str], NDArray[Any]]


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
    evaluations: Evaluations = field(default_factory=dict)
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
    def anchor(self) -> str:
        """The run's place on the page."""
        return f"run-{zlib.crc32(str(self.path).encode('utf-8', 'replace')):08x}"

    @property
    def seed(self) -> int:
        """The recipe's seed, 0 where it has none."""
        seed = self.recipe.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else 0

    @cached_property
    def _known(self) -> Recipe | None:
        """The recipe as this version reads it, None where it cannot."""
        try:
            return Recipe.model_validate(self.recipe)
        except (ValueError, TypeError, OverflowError):
            return None

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What makes the run's experiment and is not at its default, by dotted key; empty where that is not known."""
        more = {"schema_version": self.version, "micro_batch": self.micro_batches}
        known = identity_fields(self._known) | more if self._known else {}
        return {key: value for key, value in known.items() if value is not None}

    @property
    def version(self) -> Any:
        """The version of the schema, and so of the arithmetic, by which the run was trained; 1 did not say so."""
        return self.env.get("schema_version", 1)

    @property
    def micro_batches(self) -> str | None:
        """The micro-batches that shaped the result, in the order of their use; None where they do not matter."""
        used = self.summary.get("micro_batches")
        return " then ".join(map(str, used)) if isinstance(used, list) and used else None

    @cached_property
    def identity(self) -> str:
        """The experiment id, equal for all seeds; of a recipe that this version does not know, that of its folder."""
        if self._known:
            return experiment_id(self._known, self.version)
        match = SEED_AND_ID.fullmatch(self.path.name)
        return match[1] if match else self.path.name

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
        return _error(self.of("test", "accuracy"))

    @property
    def val_error(self) -> float | None:
        """Share of wrong validation pictures: the summary's, else the latest in metrics.jsonl."""
        error = _error(self.of("val", "accuracy"))
        return _error(self.metrics.last("val", "accuracy")) if error is None else error

    @property
    def test_count(self) -> int:
        """Number of test pictures."""
        count = self.of("test", "count")
        return int(count) if count > 0 else 0

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """(test_count,): test pictures taken wrongly; None unless predictions.npz is of the summary's result."""
        if self.predictions is None or self.test_error is None:
            return None
        wrong = self.predictions.labels != self.predictions.predictions
        expected = round(self.test_error * self.test_count)
        return wrong if (len(wrong), int(np.count_nonzero(wrong))) == (self.test_count, expected) else None

    @property
    def balanced(self) -> dict[str, float]:
        """Balanced accuracy and macro F1 on test pictures that are not equally many, to within 1, of each class."""
        of = self.predictions
        if of is None or not len(of.labels) or np.ptp(np.unique(of.labels, return_counts=True)[1]) <= 1:
            return {}
        return balanced_scores(of.labels, of.predictions)

    @property
    def reason(self) -> str | None:
        """Why the run has no final numbers, as far as it is known."""
        if self.problems:
            return "; ".join(self.problems)
        if self.status.get("state") == "completed":
            untested = self.summary.get("test", missing := "summary.json has no test result") is None
            return None if self.counts else "no test split (data.test_size is 0)" if untested else missing
        reason = self.status.get("reason")
        return f"{self.progress}: {reason}" if reason else self.progress

    @property
    def progress(self) -> str:
        """How far the run came."""
        step, total = number(self.status.get("step")), number(self.status.get("total_steps"))
        if total > 0 and step >= 0:
            return f"at step {step:.0f} of {total:.0f}"
        logged = self.metrics.last("train", "step")
        return "nothing logged yet" if np.isnan(logged) else f"at step {logged:.0f}"

    @property
    def command(self) -> str:
        """What trains it again: a launcher that starts as many processes, and its own recipe, which has every value."""
        recipe, world_size, strategy = (
            self.path / "recipe.yaml",
            int(self.figure("world_size") or 1),
            self.word("strategy"),
        )
        if recipe.is_relative_to(Path.cwd()):
            recipe = recipe.relative_to(Path.cwd())
        start = "cifar-lab train"
        if strategy and strategy.startswith(("zero", "fsdp")):
            config = f"--config_file {shlex.quote(config_file(strategy))} --num_processes {world_size}"
            start = f"accelerate launch {config} -m cifar_lab.train"
        elif world_size > 1:
            start = f"torchrun --nproc-per-node {world_size} -m cifar_lab.train"
        return f"{start} {shlex.quote(str(recipe))} --fresh"

    def figure(self, key: str) -> float | None:
        """A number of the summary."""
        value = number(self.summary.get(key))
        return None if np.isnan(value) else value

    def word(self, key: str) -> str | None:
        """A text of the summary."""
        value = self.summary.get(key)
        return value if isinstance(value, str) else None

    def of(self, split: str, key: str) -> float:
        """A number of the summary's result on a split, NaN without one."""
        section = self.summary.get(split)
        return number(section.get(key)) if isinstance(section, dict) else np.nan


def _error(accuracy: float) -> float | None:
    return 1 - accuracy if 0 <= accuracy <= 1 else None


def differing(runs: Sequence[RunRecord]) -> list[str]:
    """Dotted keys whose values are not the same in the recipes of all runs, in their order."""
    recipes = [run.fields for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [
        key
        for key in keys
        if key not in NOT_A_DIFFERENCE and any(recipe.get(key) != recipes[0].get(key) for recipe in recipes[1:])
    ]
