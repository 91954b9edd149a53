"""Runs as the report sees them: whatever their directories still tell."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cifar_lab.recipe.yaml_text import parse_yaml
from cifar_lab.report.curves import Metrics, read_metrics
from cifar_lab.report.record import Predictions, RunRecord
from cifar_lab.rundir.directory import STATES

T = TypeVar("T")
STEP_FOLDER = re.compile(r"step_\d{8,}")


def read_run(path: Path) -> RunRecord:
    """Read one run directory; never raises for what is in it."""
    problems: list[str] = []

    def attempt(read: Callable[[], T], empty: T) -> T:
        try:
            return read()
        except (OSError, ValueError) as error:
            problems.append(" ".join(str(error).split())[:500])
            return empty

    metrics = attempt(lambda: read_metrics(path / "metrics.jsonl"), Metrics())
    if metrics.unreadable:
        lines = "1 line is" if metrics.unreadable == 1 else f"{metrics.unreadable:,} lines are"
        problems.append(f"metrics.jsonl: {lines} unreadable, line {metrics.first_unreadable:,} first")
    return RunRecord(
        path=path.absolute(),
        recipe=attempt(lambda: _read_recipe(path / "recipe.yaml"), {}),
        status=attempt(lambda: _read_status(path / "status.json"), {}),
        summary=attempt(lambda: _read_json(path / "summary.json"), {}),
        env=attempt(lambda: _read_json(path / "env.json"), {}),
        classes=attempt(lambda: _read_classes(path / "model.json"), []),
        metrics=metrics,
        predictions=attempt(lambda: _read_predictions(path / "predictions.npz"), None),
        fingerprint=_read_fingerprint(path / "checkpoints"),
        problems=problems,
    )


def _read_text(path: Path) -> str | None:
    if not path.exists():
        return None
    if not path.is_file():
        raise ValueError(f"{path.name} is not a file")  # a pipe would wait for ever
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is damaged: it holds no JSON object")
    return value


def _read_status(path: Path) -> dict[str, Any]:
    status = _read_json(path)
    if status and status.get("state") not in STATES:
        raise ValueError(f"{path.name} is damaged: it names no state")
    return status


def _read_recipe(path: Path) -> dict[str, Any]:
    # Not load_recipe: a report must not refuse what another version of the schema wrote.
    text = _read_text(path)
    if text is None:
        raise ValueError(f"{path.name} is missing")
    document = parse_yaml(text)
    if document.problems:
        line, _, problem = document.problems[0]
        raise ValueError(f"{path.name} cannot be read: line {line}: {problem}")
    if not isinstance(document.value, dict):
        raise ValueError(f"{path.name} holds no recipe")
    return document.value


def _read_classes(path: Path) -> list[str]:
    classes = _read_json(path).get("classes")
    return [str(name) for name in classes] if isinstance(classes, list) else []


def _read_predictions(path: Path) -> Predictions | None:
    if not path.is_file():
        return None
    try:
        # Opened here: of what is no archive np.load forgets to close the file.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            ids, labels, predictions = (
                np.asarray(arrays[key], dtype=np.int64).reshape(-1) for key in ("ids", "labels", "predictions")
            )
            confidences = np.asarray(arrays["confidences"], dtype=np.float64).reshape(-1)
    except Exception as error:  # a damaged archive raises what zipfile, zlib and numpy please
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if not len(ids) == len(labels) == len(predictions) == len(confidences) or (labels < 0).any():
        raise ValueError(f"{path.name} is damaged: its columns do not fit together")
    return Predictions(labels, predictions, confidences, zlib.crc32(labels.tobytes(), zlib.crc32(ids.tobytes())))


def _read_fingerprint(checkpoints: Path) -> str | None:
    """Fingerprint of the training pictures, from the newest checkpoint; None when none tells."""
    try:
        folders = sorted(p for p in checkpoints.iterdir() if STEP_FOLDER.fullmatch(p.name))
    except OSError:
        return None
    for folder in reversed(folders):
        try:
            value = _read_json(folder / "state.json").get("data_fingerprint")
        except ValueError:
            continue
        if isinstance(value, str):
            return value
    return None
