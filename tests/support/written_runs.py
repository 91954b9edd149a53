"""Completed runs as a trainer leaves them, written in a moment: a shipped recipe, its curves and its test result."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cifar_lab.recipe import load_recipe
from cifar_lab.recipe.schema import SCHEMA_VERSION
from cifar_lab.rundir.directory import RunDir

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LINES_AN_EPOCH = 4


def written(
    runs: Path,
    name: str,
    seed: int = 0,
    *,
    error: float = 0.2,
    overrides: Sequence[str] = (),
    count: int = 1000,
    epochs: int = 10,
    fingerprint: str | None = "f" * 64,
    fresh: bool = False,
    **summary: Any,
) -> RunDir:
    """A completed run of `recipes/<name>.yaml` whose test error is `error`; `summary` changes summary.json."""
    recipe = load_recipe(RECIPES / f"{name}.yaml", [f"seed={seed}", *overrides], check_files=False)
    run = RunDir.locate(recipe, runs=str(runs), fresh=fresh)
    run.create(recipe)
    write_curves(run, error, epochs, seed)
    steps = epochs * LINES_AN_EPOCH
    test = {"loss": 3 * error, "accuracy": 1 - round(error * count) / count, "count": count}
    run.append_metrics(split="test", step=steps, epoch=float(epochs), **test)
    write_predictions(run, round(error * count), count)
    versions = {"schema_version": SCHEMA_VERSION, "revision": "0" * 40, "packages": {"torch": "2.14.1"}}
    run.write_env({"host": "node1", "device": "a CPU", **versions})
    (run.path / "model.json").write_text(json.dumps({"classes": CLASSES}))
    Image.new("RGB", (40, 40), "white").save(run.path / "mistakes.png")
    if fingerprint:
        state = run.checkpoints / f"step_{steps:08}" / "state.json"
        state.parent.mkdir(parents=True)
        state.write_text(json.dumps({"data_fingerprint": fingerprint}))
    run.write_summary(
        {
            "test": test,
            "val": {"loss": 3 * error, "accuracy": 1 - error, "count": recipe.data.val_size}
            if recipe.data.val_size
            else None,
            "steps": steps,
            "epochs": float(epochs),
            "wall_seconds": 3725.4,
            "images_per_second": 1234.5,
            "peak_memory_bytes": 3 * 2**30,
            "num_parameters": 11_173_962,
            "flops_per_image": 1_113_000_000,
            "num_train": recipe.data.limit or 45000,
            "world_size": 2,
            "micro_batch": 64,
            "strategy": "ddp",
            **summary,
        }
    )
    run.write_status("completed", steps, steps)
    run.close()
    return run


def write_curves(run: RunDir, error: float, epochs: int, seed: int = 0) -> None:
    """Losses and validation errors that fall to `error`, a little different for every seed."""
    steps = epochs * LINES_AN_EPOCH
    for step in range(1, steps + 1):
        epoch = step / LINES_AN_EPOCH
        left = math.exp(-4 * epoch / epochs)
        wave = 0.02 * left * math.sin(7 * step + seed)
        run.append_metrics(
            split="train",
            step=step,
            epoch=epoch,
            loss=2.3 * (left + error) + wave,
            lr=0.1 * (1 - step / steps),
            grad_norm=1.0,
            skipped=0,
            images_per_second=1200.0 + 50 * math.sin(step),
        )
        if step % LINES_AN_EPOCH == 0:
            wrong = min(error + (0.9 - error) * left + wave, 1.0)
            run.append_metrics(split="val", step=step, epoch=epoch, loss=3 * wrong, accuracy=1 - wrong, count=5000)
    run.close()


def write_predictions(run: RunDir, wrong: int, count: int) -> None:
    """`wrong` of `count` pictures taken for the class after their own."""
    labels = np.arange(count) % 10
    predictions = np.where(np.arange(count) < wrong, (labels + 1) % 10, labels)
    np.savez_compressed(
        run.path / "predictions.npz",
        ids=np.arange(count),
        labels=labels.astype(np.int16),
        predictions=predictions.astype(np.int16),
        confidences=np.linspace(0.3, 1, count, dtype=np.float32),
    )


STUDY_ERRORS = {
    "plain18": 0.10,
    "plain34": 0.14,
    "resnet18": 0.07,
    "resnet34": 0.06,
    "resnet18_ms": 0.05,
    "vit_tiny": 0.03,
    "vit_tiny_scratch": 0.24,
    "vit_custom": 0.31,
}


def written_study(
    runs: Path, *, seeds: int = 3, epochs: int = 10, count: int = 10_000, without: Sequence[str] = ()
) -> None:
    """All recipes of the study with the given number of seeds, errors in the published order."""
    for name, error in STUDY_ERRORS.items():
        for seed in range(seeds) if name not in without else ():
            written(runs, name, seed, error=error + 0.002 * (seed - 1), epochs=epochs, count=count)
