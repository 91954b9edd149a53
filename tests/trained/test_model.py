"""Whatever is named in place of a model, every command says in one line what is wrong with it."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.saved_runs import bare, saved_run
from support.small import small

from cifar_lab.commands import evaluate, export, predict
from cifar_lab.recipe import parse_recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.trained.model import open_saved
from cifar_lab.trained.network import SavedNetwork

COMMANDS = {
    "evaluate": lambda path: evaluate.main([path, "--data", "shapes"]),
    "predict": lambda path: predict.main([path, "x.png"]),
    "export": lambda path: export.main([path, "--format", "onnx"]),
}


def change(path, **fields):
    """Change fields of a model.json; None removes one."""
    description = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in description.items() if value is not None}))


def poison(path):
    """Put an infinite value into the last of a model's biases."""
    weights = load_file(path)
    weights["head.bias"][3] = -torch.inf
    save_file(weights, path)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


# What is done to a good folder, what is named, exit status, a part of the message.
DAMAGE = {
    "nothing": (lambda d: shutil.rmtree(d), "", 2, "does not exist: name a run directory"),
    "empty folder": (
        lambda d: [f.unlink() for f in d.iterdir()],
        "",
        2,
        "holds no model.safetensors",
    ),
    "long": (lambda d: None, "x" * 300 + "/y", 2, "does not exist: name a run directory"),
    "text file": (
        lambda d: (d / "notes.txt").write_text("x"),
        "notes.txt",
        2,
        "is neither a run directory nor a .safe",
    ),
    "no weights": (
        lambda d: (d / "model.safetensors").unlink(),
        "",
        2,
        "holds no model.safetensors",
    ),
    "weights are a pipe": (
        lambda d: ((d / "model.safetensors").unlink(), os.mkfifo(d / "model.safetensors")),
        "model.safetensors",
        2,
        "holds no model.safetensors",
    ),
    "empty weights": (lambda d: (d / "model.safetensors").write_bytes(b""), "", 1, "model.safetensors cannot be read"),
    "torn weights": (lambda d: cut(d / "model.safetensors", 5000), "", 1, "model.safetensors cannot be read"),
    "pickled weights": (
        lambda d: torch.save({"a": torch.ones(1)}, d / "model.safetensors"),
        "model.safetensors",
        1,
        "model.safetensors cannot be read",
    ),
    "other weights": (
        lambda d: save_file({"a": torch.ones(1)}, d / "model.safetensors"),
        "",
        1,
        "does not fit its model.json: Missing key",
    ),
    "NaN": (lambda d: poison(d / "model.safetensors"), "", 1, "holds NaN or infinite values (1 of "),
    "no description": (lambda d: (d / "model.json").unlink(), "", 2, "model.json is missing: it says how the model is"),
    "empty description": (lambda d: (d / "model.json").write_text(""), "", 1, "model.json is damaged: "),
    "binary description": (lambda d: (d / "model.json").write_bytes(b"\xff\x00"), "", 1, "model.json is damaged: "),
    "a list": (lambda d: (d / "model.json").write_text("[1]"), "", 1, "model.json is damaged: "),
    "deep": (lambda d: (d / "model.json").write_text("[" * 100_000), "", 1, "model.json is damaged: "),
    "format": (lambda d: change(d / "model.json", format=2), "", 1, "is damaged: format: Input should be 1"),
    "no mean": (lambda d: change(d / "model.json", mean=None), "", 1, "is damaged: mean: Field required"),
    "std": (lambda d: change(d / "model.json", std=[0.0, 1.0, 1.0]), "", 1, "is damaged: std: 0: Input should be gre"),
    "classes": (lambda d: change(d / "model.json", classes=[]), "", 1, "is damaged: classes: Tuple should have"),
    "family": (lambda d: change(d / "model.json", name="vitt"), "", 1, "model.json is damaged: model.name:"),
    "no module": (lambda d: change(d / "model.json", name="_weights"), "", 1, "model.json is damaged: model.name:"),
    "arguments": (lambda d: change(d / "model.json", args={"x": 1}), "", 1, "model.json is damaged: model.args"),
    "size": (lambda d: change(d / "model.json", image_size=64), "", 1, "does not fit its model.json: size mismatch"),
    "vast": (lambda d: change(d / "model.json", image_size=10**6), "", 1, "does not fit its model.json: size mismatch"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(tmp_path, capsys, command, name):
    damage, named, status, message = DAMAGE[name]
    folder = tmp_path / "model"
    bare("vit", folder)
    damage(folder)
    before = sorted(tmp_path.rglob("*"))
    found = COMMANDS[command](str(folder / named) if named else str(folder))
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert found == status
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_is_not_complete_says_how_to_go_on(tmp_path):
    run = RunDir(tmp_path / "runs" / "small" / "0-1")
    run.create(parse_recipe(small()))
    with pytest.raises(ValueError, match=r"not complete \(not started\).*cifar-lab train .*recipe.yaml --run-dir"):
        open_saved(str(run.path))
    run.write_status("running", 3, 20)
    with pytest.raises(ValueError, match=r"not complete \(running, step 3 of 20\)"):
        open_saved(str(run.path))
    with pytest.raises(ValueError, match=r"0-1/recipe.yaml --run-dir"):  # the only one there
        open_saved(str(run.path.parents[1]))
    RunDir(run.path.with_name("1-1")).create(parse_recipe(small()))
    with pytest.raises(ValueError, match=r"runs holds 2 runs; name one of them:\n  .*/small/0-1\n  .*/small/1-1$"):
        open_saved(str(run.path.parents[1]))


def test_a_run_by_its_folder_and_by_its_file_is_the_same():
    run = saved_run("vit")
    for path in (run.path, run.path / "model.safetensors"):
        saved = open_saved(str(path))
        assert saved.path == run.path
        assert saved.recipe == run.recipe()


def test_a_bare_file_has_defaults_and_the_same_network(tmp_path):
    saved = open_saved(str(bare("vit", tmp_path / "copy")), ["data.test_limit=7"])
    assert (saved.run, saved.recipe.data.name, saved.recipe.data.test_limit) == (None, "cifar10", 7)
    images = torch.randn(2, 3, 16, 16)
    one, other = (SavedNetwork(s, torch.device("cpu")) for s in (saved, open_saved(saved_run("vit").path)))
    assert torch.equal(one(images), other(images))
    assert one.preparation == other.preparation
    assert not one.module.training


def test_half_precision_weights_are_read_as_floats(tmp_path):
    path = bare("vit", tmp_path / "copy")
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    assert SavedNetwork(open_saved(path), torch.device("cpu"))(torch.zeros(1, 3, 16, 16)).dtype == torch.float32


def test_only_data_and_evaluation_can_be_changed(tmp_path):
    run = str(saved_run("vit").path)
    assert open_saved(run, ["data.args.num_test=10"]).recipe.data.args["num_test"] == 10
    other = open_saved(run, ["eval.batch=7"], data="cifar10").recipe.data
    assert (other.name, other.args, other.limit) == ("cifar10", {}, None)
    for text, message in (
        ("model.name=resnet", r'"model.name=resnet": of a trained model only the pictures'),
        ("data.nme=x", "did you mean `name`"),
        ("data.augment.flip=true", "of a trained model only the pictures"),
        ("data.val_size=0", "of a trained model only the pictures"),
        ("data.limit=100", "of a trained model only the pictures"),
        ("data.mean=[0,0,0]", "of a trained model only the pictures"),
        ("data.name", "is not of the form"),
    ):
        for path in (run, str(bare("vit", tmp_path / "copy"))):
            with pytest.raises(ValueError, match=message) as caught:
                open_saved(path, [text])
            assert caught.value.exit_status == 2
