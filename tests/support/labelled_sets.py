"""Labelled sets to evaluate a saved run on, made of the pictures of its own test split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.saved_runs import pictures_of


def own_pictures() -> tuple[np.ndarray, np.ndarray]:
    """The run's test split as (N, S, S, 3) and its labels."""
    test = pictures_of("vit")
    return test.images.permute(0, 2, 3, 1).numpy(), test.labels.numpy()


def kept(run: Path) -> list[dict[str, Any]]:
    """What evaluations/ of the run holds."""
    return [json.loads(file.read_text()) for file in sorted((run / "evaluations").glob("*.json"))]


def corruptions(folder: Path, *names: str) -> Path:
    """Files as CIFAR-10-C has them: five severities of the same pictures, labels beside."""
    pixels, labels = own_pictures()
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    for seed, name in enumerate(names):
        noise = 25 * np.random.default_rng(seed).standard_normal(pixels.shape)
        parts = [np.clip(pixels + severity * noise, 0, 255).astype(np.uint8) for severity in range(5)]
        np.save(folder / f"{name}.npy", np.concatenate(parts))
    return folder


def saved_copy(folder: Path, classes: Sequence[str], *, split: str = "test", num: int = 40) -> Path:
    """The run's first test pictures as `save_to_disk` writes them, labels numbered in the order of `classes`."""
    datasets = pytest.importorskip("datasets")
    pixels, labels = own_pictures()
    names = pictures_of("vit").classes
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    rows = {
        "image": [Image.fromarray(picture) for picture in pixels[:num]],
        "label": [classes.index(names[label]) for label in labels[:num]],
    }
    datasets.DatasetDict({split: datasets.Dataset.from_dict(rows, features=features)}).save_to_disk(str(folder))
    return folder
