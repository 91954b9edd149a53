"""Completed runs for tests of what uses them, each trained once a session and never to be written to."""

from __future__ import annotations

import os
import shutil
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from support.small import small

from cifar_lab.data.images import ImageSet, load_images
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import run

TIMM = {"name": "timm_zoo"}
RECIPES = {
    # Of our own, with a moving average; enough steps to be right of some pictures and wrong of others.
    "vit": small(name="own", train__ema_decay=0.9, optim__lr=3e-3, train__epochs=4),
    # Batch norm and dropout, autocast, fed pictures of twice their size in batches that do not come out even.
    "net": small(
        name="net",
        model=TIMM | {"args": {"arch": "test_efficientnet", "drop_rate": 0.2}},
        data__image_size=32,
        train__precision="bf16",
        train__epochs=2,
        eval__batch=33,
    ),
    # Position embeddings and a patch size of its own; measured with moved and mirrored views.
    "tvit": small(
        name="tvit",
        model=TIMM | {"args": {"arch": "test_vit", "patch_size": 4}},
        data__image_size=32,
        train__epochs=0.5,
        eval__batch=80,
        eval__tta="translate",
    ),
}


@cache
def saved_run(name: str) -> RunDir:
    """The completed run of RECIPES[name], in the session's cache."""
    folder = Path(os.environ["CIFAR_LAB_CACHE"]) / "saved_runs" / name
    with redirect_stderr(StringIO()):  # its progress is no part of the test that happens to be the first
        return run(RECIPES[name], run_dir=str(folder)).run_dir


def bare(name: str, folder: Path) -> Path:
    """A copy of a run's weights with their model.json and nothing else; the weights' path."""
    folder.mkdir(exist_ok=True)
    for file in ("model.safetensors", "model.json"):
        shutil.copy(saved_run(name).path / file, folder / file)
    return folder / "model.safetensors"


def pictures_of(name: str) -> ImageSet:
    """The test split of a run."""
    data = RECIPES[name]["data"]
    return load_images(data["name"], data["args"], root=None, max_gib=1).test


def picture(pixels: torch.Tensor) -> Image.Image:
    """uint8 (3, h, w) as an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def predictions(name: str) -> dict[str, np.ndarray]:
    """The arrays of a run's predictions.npz."""
    with np.load(saved_run(name).path / "predictions.npz") as arrays:
        return dict(arrays)
