"""A folder in the format of timm and the hub, checked by loading it with timm before it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from torch import nn

from cifar_lab.errors import UsageError, UserError
from cifar_lab.trained.card import model_card
from cifar_lab.trained.model import Description, SavedModel
from cifar_lab.trained.network import load_module


def export(saved: SavedModel, folder: Path) -> str:
    """Fill `folder`, which exists and is empty; what was checked, in a line. Raises UserError."""
    if saved.description.name != "timm_zoo":
        raise UsageError(
            f"{saved.path} is a {saved.description.name} of our own, which timm does not know: use --format onnx, or "
            "pass on model.safetensors with model.json, which `cifar-lab evaluate` and `cifar-lab predict` read"
        )
    module = load_module(saved)
    _write(module, saved.description, folder)
    difference = _difference(module, saved.description.image_size, folder)
    if difference != 0:
        raise UserError(f"timm {timm.__version__} loads other logits from the export (by {difference:.1e})")
    (folder / "README.md").write_text(model_card(saved, "timm"), encoding="utf-8")
    return f"timm {timm.__version__} loads it and gives the same logits"


def _write(module: nn.Module, description: Description, folder: Path) -> None:
    size = (3, description.image_size, description.image_size)
    data = {
        "input_size": size,
        "mean": description.mean,
        "std": description.std,
        "interpolation": description.interpolation,
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    # Labels, tag, licence and origin in the architecture's own configuration are those of its published weights.
    own = {"label_names": list(description.classes), "num_classes": description.num_classes}
    save_for_hf(module, str(folder), model_config=own, safe_serialization=True, data_config=data)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("tag", "license", "origin_url", "paper_ids", "paper_name", "notes", "label_descriptions"):
        config["pretrained_cfg"].pop(key, None)
    config_file = folder / "config.json"
    (folder / "model.safetensors").chmod(config_file.stat().st_mode)  # safetensors gives it to its owner alone
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _difference(module: nn.Module, size: int, folder: Path) -> float:
    """Largest difference of the logits of two inputs, as timm loads them; 0 if every bit is the same."""
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((loaded(images) - module(images)).abs().max())
