"""Every strong recipe can be looked at, keeps to its size, and takes real steps when overrides make it small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.study import train_losses

from cifar_lab.models import size as model_size
from cifar_lab.planning import kept_answer
from cifar_lab.recipe import load_recipe
from cifar_lab.recipe.book import expected
from cifar_lab.recipe.schema import Model
from cifar_lab.train import main, run

STRONG = Path(__file__).resolve().parents[2] / "recipes" / "strong"
# Aim in percent, and parameters in millions: at least, at most.
TABLE = {
    "resnet18": ("96", 11.0, 11.4),
    "vit": ("92", 3.0, 6.3),
    "vit_tiny": ("98", 5.0, 6.0),
    "eva02_large": ("99.4", 300.0, 310.0),
}
_ALL = (
    "data.name=shapes data.args.num_train=96 data.args.num_test=20 data.val_size=0 train.epochs=1 train.global_batch=16"
    " train.precision=fp32 optim.warmup_epochs=0 eval.batch=20 log.every_steps=1 tracking.wandb_project=null"
)
_TIMM = "model.pretrained=false data.image_size=32"
REDUCED = {
    "resnet18": "model.args.width=8",
    "vit": "model.args.width=32 model.args.depth=2",
    "vit_tiny": _TIMM,
    "eva02_large": f"{_TIMM} model.args.arch=eva02_tiny_patch14_224 data.image_size=28",
}


def test_these_are_the_strong_recipes() -> None:
    assert {path.stem for path in STRONG.glob("*.yaml")} == set(TABLE) == set(REDUCED)


@pytest.mark.parametrize("name", TABLE)
def test_dry_run_size_and_header(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Answer:
        """The model's size from this process: a child would import torch again."""

        returncode = 0

        def __init__(self, command: list[str], *, input: str, **how: object) -> None:
            asked = json.loads(input)
            size = model_size.model_size(Model(**asked["model"]), asked["num_classes"], asked["image_size"])
            self.stdout = json.dumps(vars(size))

    monkeypatch.setattr(kept_answer.subprocess, "run", Answer)
    path, runs = STRONG / f"{name}.yaml", tmp_path / "runs"
    assert main([str(path), "--dry-run", "--json", "--runs", str(runs)]) == 0
    found = json.loads(capsys.readouterr().out)
    aim, least, most = TABLE[name]
    assert least * 1e6 < found["model"]["num_parameters"] <= most * 1e6
    assert found["recipe"]["name"]["value"] == f"{name}_strong"
    assert "not measured" in expected(path) and aim in expected(path)
    text = path.read_text()
    assert "arXiv" in text and "Planned (cifar-lab plan" in text
    assert not runs.exists()


@pytest.mark.parametrize("name", TABLE)
def test_real_steps(name: str, tmp_path: Path) -> None:
    overrides = f"{_ALL} {REDUCED[name]}".split()
    outcome = run(str(STRONG / f"{name}.yaml"), overrides=overrides, runs=str(tmp_path))
    assert outcome.completed
    losses = train_losses(outcome.run_dir)
    assert len(losses) == 6 and all(0 < loss < 20 for loss in losses)
    summary = outcome.run_dir.summary()
    assert summary is not None and summary["test"]["count"] == 20
    # What makes a recipe strong stays on in the small run.
    small, full = load_recipe(STRONG / f"{name}.yaml", overrides), load_recipe(STRONG / f"{name}.yaml")
    assert (small.data.augment, small.train.label_smoothing, small.eval.tta) == (
        full.data.augment,
        full.train.label_smoothing,
        full.eval.tta,
    )
