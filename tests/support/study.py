"""The study's recipes, and the overrides with which each takes real steps on CIFAR-10 in a few seconds of one core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from cifar_lab.rundir.directory import RunDir

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
WEIGHTS = RECIPES.parent.parent / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"

# epochs, global batch, optimizer, learning rate and whether published weights are the start: the study's table.
TABLE = {
    "plain18": (150, 256, "sgd", 0.1, False),
    "plain34": (150, 256, "sgd", 0.1, False),
    "resnet18": (150, 256, "sgd", 0.1, False),
    "resnet34": (150, 256, "sgd", 0.1, False),
    "resnet18_ms": (150, 256, "sgd", 0.1, False),
    "vit_tiny": (150, 512, "adamw", 1e-4, True),
    "vit_tiny_scratch": (150, 512, "adamw", 1e-4, False),
    "vit_custom": (150, 512, "adamw", 1e-4, False),
    "eva02_large": (50, 256, "adamw", 1e-4, True),
}

_ALL = "data.val_size=50 data.test_limit=50 train.epochs=1 eval.batch=50 log.every_steps=1 tracking.wandb_project=null"
_CONV = "data.limit=6000 train.global_batch=100 data.image_size=16 model.args.width=8 optim.lr=0.05"
_TIMM = "model.pretrained=false data.limit=512 train.global_batch=16 optim.warmup_epochs=0"
_VIT_TINY = f"{_TIMM} data.image_size=64 optim.lr=2e-4"
REDUCED = {
    "plain18": _CONV,
    "plain34": f"{_CONV} optim.lr=0.03",
    "resnet18": _CONV,
    "resnet34": _CONV,
    "resnet18_ms": _CONV,
    "vit_tiny": _VIT_TINY,
    "vit_tiny_scratch": f"{_VIT_TINY} seed=1",
    "vit_custom": "data.limit=1920 train.global_batch=48 model.args.width=64 model.args.depth=3"
    " optim.lr=2e-3 optim.warmup_epochs=0.1",
    "eva02_large": f"{_TIMM} model.args.arch=eva02_tiny_patch14_224 data.image_size=28 optim.lr=1e-3",
}


def recipe_path(name: str) -> str:
    """The file of a recipe."""
    return str(RECIPES / f"{name}.yaml")


def reduced(name: str) -> list[str]:
    """Overrides that shrink the recipe `name`; nothing else tells the small run from the large one."""
    return f"{_ALL} {REDUCED[name]}".split()


def train_losses(run_dir: RunDir) -> list[float]:
    """The losses of all train lines."""
    return [line["loss"] for line in run_dir.metrics() if line["split"] == "train"]


def quarters(losses: Sequence[float]) -> tuple[float, float]:
    """Mean of the first and of the last quarter."""
    quarter = len(losses) // 4
    return fmean(losses[:quarter]), fmean(losses[-quarter:])
