"""Every recipe of the study can be looked at, and trains on real CIFAR-10 when overrides alone make it small."""

import json

import pytest
import torch
from safetensors.torch import load_file
from support.study import RECIPES, REDUCED, TABLE, WEIGHTS, quarters, recipe_path, reduced, train_losses

from cifar_lab.models import size as model_size
from cifar_lab.models.coupling import coupling_layers
from cifar_lab.models.factory import build_model, num_parameters
from cifar_lab.planning import kept_answer
from cifar_lab.recipe import load_recipe
from cifar_lab.recipe.schema import Model
from cifar_lab.train import main, run

OTHERS = {"demo", "speedrun94"}
NUM_TRAIN = 45_000  # CIFAR-10 without the held-out 5,000


@pytest.fixture
def in_this_process(monkeypatch):
    """Answer the model's size here: nine children would each import torch first (test_dry_run.py has one)."""

    class Answer:
        returncode = 0

        def __init__(self, command, *, input, **how):
            assert command[-1] == "models.size"
            question = json.loads(input)
            size = model_size.model_size(Model(**question["model"]), question["num_classes"], question["image_size"])
            self.stdout = json.dumps(vars(size))

    monkeypatch.setattr(kept_answer.subprocess, "run", Answer)


def test_these_are_the_recipes_of_the_study():
    assert {path.stem for path in RECIPES.glob("*.yaml")} - OTHERS == set(TABLE) == set(REDUCED)


@pytest.mark.parametrize("name", TABLE)
def test_dry_run(name, in_this_process, tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main([recipe_path(name), "--dry-run", "--json", "--world-size", "4", "--runs", str(runs)]) == 0
    found = json.loads(capsys.readouterr().out)
    epochs, global_batch, optimizer, lr, pretrained = TABLE[name]
    told = {key: item["value"] for key, item in found["recipe"].items()}
    assert told["name"] == name
    assert (told["train.epochs"], told["optim.name"], told["optim.lr"]) == (epochs, optimizer, lr)
    assert (told["model.pretrained"], told["seed"], told["data.val_size"]) == (pretrained, 0, 5000)
    steps = NUM_TRAIN // global_batch
    assert found["batch"] == {
        "global_batch": global_batch,
        "micro_batch": global_batch // 4,
        "accumulation_steps": 1,
        "steps_per_epoch": steps,
        "total_steps": steps * epochs,
    }
    assert found["data"]["num_train"] == NUM_TRAIN
    assert found["model"]["num_parameters"] > 1e6
    assert not runs.exists()


@pytest.mark.parametrize("name", TABLE)
def test_the_loss_falls(name, tmp_path, cifar10_root):
    overrides = reduced(name)
    outcome = run(recipe_path(name), overrides=overrides, runs=str(tmp_path))
    assert outcome.completed
    assert outcome.run_dir.status().state == "completed"
    recipe = load_recipe(recipe_path(name), overrides)
    num_train, global_batch = recipe.data.limit, recipe.train.global_batch
    losses = train_losses(outcome.run_dir)
    assert len(losses) == num_train // global_batch
    first, last = quarters(losses)
    assert last < first - 0.05, losses
    check_summary(outcome.run_dir, recipe, num_train, len(losses))


def check_summary(run_dir, recipe, num_train, steps):
    """All fields of summary.json, each against something else than the code that wrote it."""
    summary = run_dir.summary()
    last = {line["split"]: line for line in run_dir.metrics()}
    for split in ("test", "val"):
        assert summary.pop(split) == {key: last[split][key] for key in ("loss", "accuracy", "count")}
        assert last[split]["count"] == 50
        assert (last[split]["accuracy"] * 50) % 1 == pytest.approx(0, abs=1e-6)
    model = build_model(recipe.model, 10, recipe.data.image_size or 32, seed=0)
    assert summary.pop("num_parameters") == num_parameters(model)
    assert set(load_file(run_dir.path / "model.safetensors")) >= {name for name, _ in model.named_parameters()}
    # A multiply-add of every parameter at least once, and not more often than there are pixels.
    assert 1 < summary.pop("flops_per_image") / num_parameters(model) < 2 * 32 * 32
    assert summary.pop("wall_seconds") > 0
    assert summary.pop("images_per_second") > 0
    assert 2**27 < summary.pop("peak_memory_bytes") < 2**34
    assert summary == {
        "steps": steps,
        "epochs": 1.0,
        "num_train": num_train,
        "world_size": 1,
        "micro_batch": recipe.train.global_batch,
        "micro_batches": [str(recipe.train.global_batch)] * bool(coupling_layers(model)),
        "strategy": "single",
        "wandb_id": None,
    }


def test_vit_tiny_with_other_weights_from_a_file(tmp_path, cifar10_root):
    """Pretrained weights without network: the recipe of the pretrained ViT, its model and weights overridden."""
    if not WEIGHTS.exists():
        pytest.skip(f"{WEIGHTS} is not there: no published weights")
    overrides = [*reduced("vit_tiny"), "model.args.arch=tf_efficientnet_lite0", f"model.weights={WEIGHTS}"]
    overrides += ["data.limit=320", "optim.lr=1e-3"]
    outcome = run(recipe_path("vit_tiny"), overrides=overrides, runs=str(tmp_path))
    first, last = quarters(train_losses(outcome.run_dir))
    assert last < first - 0.05
    published = load_file(WEIGHTS)["conv_stem.weight"]
    ours = load_file(outcome.run_dir.path / "model.safetensors")["conv_stem.weight"]
    # AdamW moves a weight by about the learning rate a step; from random weights they would be unrelated.
    assert torch.corrcoef(torch.stack([published.flatten(), ours.flatten()]))[0, 1] > 0.99
    assert not torch.equal(published, ours)
    description = json.loads((outcome.run_dir.path / "model.json").read_text())
    assert description["mean"] == description["std"] == [0.5, 0.5, 0.5]  # those weights' own
