"""Runs as the report sees them: whatever their directories still tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cifar_lab.errors import UserError
from cifar_lab.rundir import RunDir, RunDirError, Status

T = TypeVar("T")
NUMBER = (int, float)


class ReportError(UserError):
    """Nothing to report on; the message names the way out."""

    exit_status = 2


@dataclass(frozen=True)
class RunRecord:
    """One run directory; what is missing is empty, what is damaged is empty and named in `problems`."""

    path: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    status: Status | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Recipe name and run, `resnet18/0-1a2b3c4d`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def model(self) -> str | None:
        """Family, with the architecture or the depth where it has one."""
        model = self.recipe.get("model")
        if not isinstance(model, dict) or "name" not in model:
            return None
        args = model.get("args")
        args = args if isinstance(args, dict) else {}
        return " ".join(str(part) for part in (model["name"], args.get("arch"), args.get("depth")) if part is not None)

    @property
    def state(self) -> str:
        """State of status.json, `corrupt` when anything could not be read, `not started` without a status."""
        if self.problems:
            return "corrupt"
        return self.status.state if self.status else "not started"

    @property
    def reason(self) -> str | None:
        """Why the run has no final numbers, as far as it is known."""
        if self.problems:
            return "; ".join(self.problems)
        if self.status is None or self.status.state == "completed":
            return None
        where = f"at step {self.status.step} of {self.status.total_steps}"
        return f"{where}: {self.status.reason}" if self.status.reason else where

    def result(self, split: str, key: str) -> float | None:
        """Latest `key` of a split: the summary's, else that of the last line in metrics.jsonl."""
        section = self.summary.get(split)
        if isinstance(section, dict) and isinstance(section.get(key), NUMBER):
            return float(section[key])
        values = [line[key] for line in self._lines(split) if isinstance(line.get(key), NUMBER)]
        return float(values[-1]) if values else None

    def curve(self, split: str, key: str) -> tuple[list[float], list[float]]:
        """Epochs and values of `key` on a split, in the order of training."""
        lines = [line for line in self._lines(split) if all(isinstance(line.get(k), NUMBER) for k in ("epoch", key))]
        return [float(line["epoch"]) for line in lines], [float(line[key]) for line in lines]

    def _lines(self, split: str) -> list[dict[str, Any]]:
        return [line for line in self.metrics if line.get("split") == split]


def read_run(path: Path) -> RunRecord:
    """Read one run directory; never raises for what is in it."""
    run, problems = RunDir(path), []

    def attempt(read: Callable[[], T | None], empty: T) -> T:
        try:
            value = read()
        except (OSError, ValueError) as error:
            problems.append(" ".join(str(error).split()))
            return empty
        return empty if value is None else value

    return RunRecord(
        path=run.path,
        recipe=attempt(lambda: _read_recipe(run.path / "recipe.yaml"), {}),
        status=attempt(run.status, None),
        summary=attempt(run.summary, {}),
        metrics=attempt(run.metrics, []),
        problems=problems,
    )


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run directories among `paths` and below them, in order, each once; raises ReportError where there is none."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ReportError(f"{path} is not a directory; give run directories, or a folder of them such as runs")
        here = [path] if (path / "recipe.yaml").exists() else sorted(p.parent for p in path.glob("**/recipe.yaml"))
        if not here:
            raise ReportError(f"no run in {path}: no recipe.yaml in it or below it")
        found.update(dict.fromkeys(run.absolute() for run in here))
    return list(found)


def _read_recipe(path: Path) -> dict[str, Any]:
    # Not load_recipe: a report must not refuse what another version of the schema wrote.
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunDirError(f"{path} cannot be read: {error}") from error
    if not isinstance(recipe, dict):
        raise RunDirError(f"{path} holds no recipe")
    return recipe
