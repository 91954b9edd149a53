"""Runs as the report sees them: whatever their directories still tell."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cifar_lab.recipe.yaml_text import parse_yaml
from cifar_lab.report.curves import Metrics, read_metrics
from cifar_lab.report.other_sets import evaluation
from cifar_lab.report.record import Evaluations, Predictions, RunRecord

T = TypeVar("T")


def read_run(path: Path) -> RunRecord:
    """Read one run directory; never raises for what is in it."""
    problems: list[str] = []

    def attempt(name: str, read: Callable[[Path], T], empty: T) -> T:
        try:
            return read(path / name)
        except FileNotFoundError:
            return empty
        except Exception as error:  # a damaged archive raises what zipfile, zlib and numpy please
            problems.append(f"{name} cannot be read: {' '.join(str(error).split())}"[:500])
            return empty

    if not (path / "recipe.yaml").exists():
        problems.append("recipe.yaml is missing")
    metrics = attempt("metrics.jsonl", read_metrics, Metrics())
    if metrics.unreadable:
        lines = f"{len(metrics.unreadable):,} line{'s are' if len(metrics.unreadable) > 1 else ' is'}"
        problems.append(f"metrics.jsonl: {lines} unreadable, line {metrics.unreadable[0]:,} first")
    evaluations: Evaluations = {}
    for kept in sorted(path.glob("evaluations/*.json")):
        evaluations |= attempt(f"evaluations/{kept.name}", lambda file: evaluation(_json(file)), Evaluations())
    return RunRecord(
        path=path.absolute(),
        recipe=attempt("recipe.yaml", _recipe, {}),
        status=attempt("status.json", _json, {}),
        summary=attempt("summary.json", _json, {}),
        env=attempt("env.json", _json, {}),
        classes=attempt("model.json", _classes, []),
        metrics=metrics,
        predictions=attempt("predictions.npz", _predictions, None),
        fingerprint=_fingerprint(path / "checkpoints"),
        evaluations=evaluations,
        problems=problems,
    )


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def _recipe(path: Path) -> dict[str, Any]:
    # Not load_recipe: a report must not refuse what another version of the schema wrote.
    document = parse_yaml(path.read_text(encoding="utf-8"))
    if document.problems:
        line, _, problem = document.problems[0]
        raise ValueError(f"line {line}: {problem}")
    if not isinstance(document.value, dict):
        raise ValueError("it holds no recipe")
    return document.value


def _classes(path: Path) -> list[str]:
    classes = _json(path).get("classes")
    return [str(name) for name in classes] if isinstance(classes, list) else []


def _predictions(path: Path) -> Predictions:
    # Opened here: of what is no archive np.load forgets to close the file.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        ids, labels, predictions = (
            np.asarray(arrays[key], dtype=np.int64).reshape(-1) for key in ("ids", "labels", "predictions")
        )
        confidences = np.asarray(arrays["confidences"], np.float64).reshape(-1) if "confidences" in arrays else None
    if not len(ids) == len(labels) == len(predictions) or (labels < 0).any() or (predictions < 0).any():
        raise ValueError("its columns do not fit together")
    if confidences is not None and (
        len(confidences) != len(ids) or not ((confidences >= 0) & (confidences <= 1)).all()
    ):
        raise ValueError("its confidences are not one share a picture")
    return Predictions(labels, predictions, zlib.crc32(labels.tobytes(), zlib.crc32(ids.tobytes())), confidences)


def _fingerprint(checkpoints: Path) -> str | None:
    """Fingerprint of the training pictures, from the newest checkpoint that tells it."""
    for state in sorted(checkpoints.glob("step_*/state.json"), key=lambda path: path.parent.name, reverse=True):
        try:
            value = _json(state).get("data_fingerprint")
        except (OSError, ValueError):
            continue
        if isinstance(value, str):
            return value
    return None
