"""Trained: evaluate, predict and export of a run, against what it recorded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cifar_lab.data.images import load_images
from cifar_lab.rundir.directory import RunDir
from cifar_lab.train import run
from cifar_lab.trained.measure import measure
from cifar_lab.trained.model import open_saved
from cifar_lab.trained.network import load_network
from gpu_checks.check import Found, Place
from gpu_checks.runs import small

PICTURES = 32
# Of a probability: batches of other sizes, and other kernels for them.
TOLERANCE = 2e-3


def trained(place: Place, found: Found) -> None:
    """A run in bf16 with a moving average, tested with moved and mirrored views."""
    mapping = small(
        data__args__num_train=1280,
        optim__lr=0.5,
        train={"steps": 40, "global_batch": 64, "precision": "bf16", "ema_decay": 0.9},
        eval={"tta": "translate", "batch": 64},
    )
    done = run(mapping, run_dir=str(place.folder / "run")).run_dir
    summary = done.summary()
    assert summary is not None
    (measured,) = measure(open_saved(done.path), "test")
    found.at_most("pictures counted otherwise", abs(measured["count"] - summary["test"]["count"]), 0)
    found.at_most("accuracy off by", abs(measured["accuracy"] - summary["test"]["accuracy"]), 0.0)
    found.at_most("loss off by", abs(measured["loss"] - summary["test"]["loss"]), 1e-6)
    _predict(place.folder, found, mapping)
    _export(done, place.folder, found)


def _predict(folder: Path, found: Found, mapping: dict[str, Any]) -> None:
    """Files of test pictures, asked one by one, against predictions.npz of a run that measured without views."""
    done = run(small(**{**_without_views(mapping), "name": "plain"}), run_dir=str(folder / "plain")).run_dir
    test = load_images("shapes", mapping["data"]["args"], root=None, max_gib=1.0).test
    with np.load(done.path / "predictions.npz") as arrays:
        recorded = dict(arrays)
    files = []
    for number in range(PICTURES):
        files.append(folder / f"{number:02}.png")
        Image.fromarray(test.pixels[number].permute(1, 2, 0).contiguous().numpy()).save(files[-1])
    network = load_network(open_saved(done.path))
    wrong, largest = 0, 0.0
    for number, (_, ranked) in enumerate(network.guess(files, 10)):
        row = int(np.flatnonzero(recorded["ids"] == int(test.ids[number]))[0])
        probability = dict(ranked)[test.classes[recorded["predictions"][row]]]
        largest = max(largest, abs(probability - float(recorded["confidences"][row])))
        wrong += probability < ranked[0][1] - TOLERANCE
    found.at_most("predictions that differ", wrong, 0)
    found.at_most("probabilities off by", largest, TOLERANCE)


def _without_views(mapping: dict[str, Any]) -> dict[str, Any]:
    return {**mapping, "eval": {"batch": 64}, "train": {**mapping["train"], "precision": "fp32", "steps": 20}}


def _export(done: RunDir, folder: Path, found: Found) -> None:
    """To ONNX; the export compares the logits itself, and raises where they differ."""
    missing = [n for n in ("timm", "onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(n) is None]
    if missing:
        found.skip(f"export: {', '.join(missing)} not installed")
        return
    from cifar_lab.trained.export import to_onnx

    target = folder / "onnx"
    target.mkdir()
    with torch.no_grad():
        found.note("export", to_onnx(open_saved(done.path), target))
    found.holds("the export has its files", (target / "model.onnx").exists())
