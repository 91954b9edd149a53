"""Trains what a report is made of: the study's recipes at reduced size, three seeds for most, and runs that end badly.

    python tests/support/report_runs.py DIR

A quarter of an hour on one core. Real CIFAR-10 with CIFAR_LAB_DATA, else shapes. One process trains all; started again
it continues where it was cut off.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
WEIGHTS = ROOT.parent / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"
SEEDS = (0, 1, 2)

REAL = "data.val_size=1000 data.test_limit=2000 data.limit=4000"
DRAWN = "data.name=shapes data.val_size=1000 data.test_limit=2000 data.limit=4000"
COMMON = "eval.batch=250 log.every_steps=5 checkpoint.every_epochs=100 tracking.wandb_project=null"
CONV = "data.image_size=16 model.args.width=8 train.epochs=8 train.global_batch=100 optim.lr=0.05"
VIT = "data.image_size=64 model.args.arch=test_vit model.pretrained=false train.global_batch=100 optim.lr=1e-3"
STUDY = {
    "plain18": CONV,
    "plain34": CONV,
    "resnet18": CONV,
    "resnet34": CONV,
    "resnet18_ms": CONV,
    "vit_tiny_scratch": f"{VIT} train.epochs=8 optim.warmup_epochs=1",
    "vit_custom": "model.args.width=48 model.args.depth=3 train.epochs=8 train.global_batch=100 optim.lr=1e-3"
    " optim.warmup_epochs=1",
    "eva02_large": "model.args.arch=eva02_tiny_patch14_224 model.pretrained=false data.image_size=28 train.epochs=1"
    " train.global_batch=50 data.limit=1000 data.val_size=500 optim.lr=1e-3 optim.warmup_epochs=0",
}
LITE = "name={name} data.image_size=48 model.args.arch=tf_efficientnet_lite0 model.pretrained=false train.epochs=2"
LITE += " train.global_batch=50 data.limit=2000 optim.lr=5e-4 optim.warmup_epochs=0.5"


def plans(data: str) -> list[tuple[str, str]]:
    """Recipe and overrides of every run that completes, in the order in which they can be trained."""
    common = f"{data} {COMMON}"
    first = f"name=vit_pretraining {VIT} data.limit=20000 train.epochs=4 optim.warmup_epochs=1"
    runs = [("vit_tiny_scratch", f"{common} {first} --run-dir vit_pretraining/0")]
    for name, overrides in STUDY.items():
        seeds = SEEDS[:1] if name == "eva02_large" else SEEDS[:2] if name == "vit_custom" else SEEDS
        runs += [(name, f"{common} {overrides} seed={seed}") for seed in seeds]
    tuned = f"{VIT} train.epochs=8 optim.warmup_epochs=1 model.weights=vit_pretraining/0"
    runs += [("vit_tiny", f"{common} {tuned} seed={seed}") for seed in SEEDS]
    if WEIGHTS.is_file():
        runs += [("vit_tiny", f"{common} {LITE.format(name='lite0')} model.weights={WEIGHTS}")]
        runs += [("vit_tiny", f"{common} {LITE.format(name='lite0_scratch')}")]
    return runs


def ending_badly(data: str) -> list[tuple[str, str]]:
    """One run that diverges, and one that was asked to stop before its first step."""
    common = f"{data} {COMMON} {CONV}"
    return [
        ("resnet18", f"{common} name=too_fast optim.lr=1e30"),
        ("resnet18", f"{common} name=stopped seed=7 --run-dir stopped/7"),
    ]


def train_all(folder: Path, runs: list[tuple[str, str]]) -> None:
    """Train each; what ends badly is told and passed over."""
    from cifar_lab.errors import UserError
    from cifar_lab.train import run

    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    for name, text in runs:
        overrides, _, run_dir = text.partition(" --run-dir ")
        if "name=stopped" in overrides:
            Path(run_dir).mkdir(parents=True, exist_ok=True)
            (Path(run_dir) / "STOP").touch()
        started = time.monotonic()
        try:
            outcome = run(RECIPES / f"{name}.yaml", overrides=overrides.split(), runs=".", run_dir=run_dir or None)
        except (UserError, ArithmeticError) as error:
            print(f"{name} {text}: {error}", flush=True)
            continue
        print(f"{outcome.run_dir.path}: {time.monotonic() - started:.0f} s", flush=True)
        if not outcome.completed and "name=stopped" not in overrides:
            return  # Ctrl-C ends all, not one


def main(argv: list[str]) -> None:
    """Train everything below argv[0]."""
    data = REAL if os.environ.get("CIFAR_LAB_DATA") else DRAWN
    train_all(Path(argv[0]), [*plans(data), *ending_badly(data)])


if __name__ == "__main__":
    main(sys.argv[1:])
