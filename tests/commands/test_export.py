"""What is exported is loaded by the programs that it is for, and answers as the original does."""

import importlib.util
import json
import os
import shutil
import signal
import time

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from support.saved_runs import bare, pictures_of, predictions, saved_run

from cifar_lab.commands import export
from cifar_lab.trained import export as exports
from cifar_lab.trained.model import open_saved
from cifar_lab.trained.network import load_module


@pytest.fixture
def exported(tmp_path, capsys):
    """The folder of an export that worked."""

    def make(name, form):
        folder = tmp_path / "out" / form
        assert export.main([str(saved_run(name).path), "--format", form, "--out", str(folder)]) == 0
        assert capsys.readouterr().out.startswith(f"{folder}: ")
        assert [path.name for path in folder.parent.iterdir()] == [form]
        return folder

    return make


@pytest.mark.parametrize("name", ["net", "tvit"])
def test_timm_loads_the_folder_and_gives_the_same_logits(exported, name):
    folder, run = exported(name, "timm"), saved_run(name)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    original = load_module(open_saved(str(run.path)))
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(loaded(images), original(images))
    description = json.loads((run.path / "model.json").read_text())
    data = timm.data.resolve_model_data_config(loaded)
    assert (data["input_size"], data["interpolation"], data["crop_pct"]) == ((3, 32, 32), "bicubic", 1.0)
    assert [list(data[key]) for key in ("mean", "std")] == [description["mean"], description["std"]]
    assert list(loaded.pretrained_cfg["label_names"]) == description["classes"]
    assert loaded.num_classes == 10
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert len(modes) == 1


def test_timm_s_folder_classifies_the_test_split_as_the_run_did(exported):
    loaded = timm.create_model(f"local-dir:{exported('net', 'timm')}", pretrained=True).eval()
    data, kept = timm.data.resolve_model_data_config(loaded), predictions("net")
    mean, std = (torch.tensor(data[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = pictures_of("net").images.float() / 255
    resized = torch.nn.functional.interpolate(images, size=32, mode="bicubic", antialias=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = loaded((resized - mean) / std).argmax(1)
    assert (found.numpy() == kept["predictions"]).mean() > 0.95  # rounding may move one


@pytest.mark.parametrize("form", ["timm", "onnx"])
def test_the_card_has_the_real_numbers(exported, form):
    summary, text = saved_run("net").summary(), (exported("net", form) / "README.md").read_text()
    shares = (100 * summary[split]["accuracy"] for split in ("test", "val"))
    test, val = (f"{100 - share:.2f} % | {share:.2f} %" for share in shares)
    assert f"| test | 60 | {test} | {summary['test']['loss']:.4f} |" in text
    assert f"| held out of training | 80 | {val} |" in text
    for part in ("Seed 0", "40 steps", "arch: test_efficientnet", "from scratch", "horizontal_stripes"):
        assert part in text
    for part in ("## What is not known", "over seeds: this is one run", "licence"):
        assert part in text
    assert "not known" not in text.partition("## What is not known")[0]
    assert text.startswith("---\npipeline_tag: image-classification\n")


def test_the_card_tells_test_time_augmentation(tmp_path):
    assert saved_run("tvit").recipe().eval.tta
    assert export.main([str(saved_run("tvit").path), "--format", "timm", "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "What is exported is a single pass, whose accuracy was not measured here." in card
    assert "model-index" not in card


@pytest.mark.parametrize("out", ["/", "."])
def test_an_export_is_a_new_folder(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export.main([str(saved_run("net").path), "--format", "onnx", "--out", out]) == 2
    assert "exists already" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sigterm_leaves_nothing_half_written(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def ended_in_the_middle():
        with export._appearing(tmp_path / "new" / "out") as temporary:
            (temporary / "half").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(SystemExit) as ended:
        ended_in_the_middle()
    assert ended.value.code == 143
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_card_of_a_bare_file_knows_nothing_else(tmp_path, capsys):
    weights = bare("net", tmp_path / "copy")
    assert export.main([str(weights), "--format", "timm"]) == 0
    text = (weights.parent / "export" / "timm" / "README.md").read_text()
    assert "Not measured." in text and "recipe, seed and training are not known" in text
    assert "no measurement came with the weights" in text


def test_the_card_tells_no_folders(tmp_path):
    shutil.copytree(saved_run("net").path, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(
        recipe.read_text()
        .replace("root: null", "root: /home/me/data")
        .replace("\n  weights: null", "\n  weights: /home/me/start.safetensors")
        .replace("wandb_entity: null", "wandb_entity: our-team")
    )
    assert export.main([str(tmp_path / "run"), "--format", "timm"]) == 0
    text = (tmp_path / "run" / "export" / "timm" / "README.md").read_text()
    assert "start.safetensors" in text
    assert "/home/me" not in text and "our-team" not in text


@pytest.mark.parametrize("name", ["vit", "net", "tvit"])
def test_onnx_runtime_gives_the_run_s_answers(exported, name):
    """From pixels divided by 255 alone: at another batch than it was exported with."""
    folder = exported(name, "onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    size = 16 if name == "vit" else 32
    images = pictures_of(name).images.float() / 255
    images = torch.nn.functional.interpolate(images, size=size, mode="bicubic", antialias=True)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    description = json.loads((saved_run(name).path / "model.json").read_text())
    mean, std = (torch.tensor(description[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = load_module(open_saved(str(saved_run(name).path)))((images - mean) / std).numpy()
    assert np.abs(logits - expected).max() < 1e-4
    same = logits.argmax(1) == predictions(name)["predictions"]
    # The run itself rounded to bf16 (net), or averaged views (tvit): where two classes are nearly equal that decides.
    first, second = np.sort(logits)[:, :-3:-1].T
    clear = first - second > 2**-7 * np.abs(logits).max()
    assert clear.mean() > 0.8 and same[clear].mean() > (0.7 if name == "tvit" else 0.999)
    (one,) = session.run(["logits"], {"images": images[:1].numpy()})
    assert np.abs(one - expected[:1]).max() < 1e-4
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == description["classes"]
    assert (told["image_size"], json.loads(told["mean"])) == (str(size), description["mean"])
    assert session.get_inputs()[0].shape[1:] == [3, size, size]
    assert f"Opset {exports.OPSET}" in (folder / "README.md").read_text()


def nothing_left(folder):
    return not any(path.name.startswith(".tmp") or path.name in ("out", "export") for path in folder.rglob("*"))


def test_a_model_of_our_own_is_refused_for_timm(tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert export.main([str(saved_run("vit").path), "--format", "timm", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "is a vit, which timm does not know: use --format onnx" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["timm", "onnx"])
def test_an_export_that_answers_otherwise_is_not_kept(tmp_path, capsys, monkeypatch, form):
    """The weights are changed after the export and before the comparison."""
    original = getattr(exports, f"_write_{form}")

    def disturb(model, *rest):
        original(model, *rest)
        with torch.no_grad():
            next(iter(model.parameters())).add_(0.5)

    monkeypatch.setattr(exports, f"_write_{form}", disturb)
    assert export.main([str(saved_run("net").path), "--format", form, "--out", str(tmp_path / "out")]) != 0
    assert "other logits" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["timm", "onnx"])
def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch, form):
    def interrupt(*_):
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(exports, f"_{form}_difference", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export.main([str(saved_run("net").path), "--format", form, "--out", str(tmp_path / "a" / "out")])
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name, status, message in (
        ("full", 2, "exists already"),
        ("file", 2, "exists already"),
        ("link", 2, "exists already"),
        ("file/below", 1, "cannot write"),
        ("x" * 300, 1, "cannot write"),
    ):
        assert export.main([str(saved_run("net").path), "--format", "timm", "--out", str(tmp_path / name)]) == status
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "link"]


def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else find(name, *a))
    assert export.main([str(saved_run("vit").path), "--format", "onnx", "--out", str(tmp_path / "out")]) == 1
    assert "onnxscript cannot be found: pip install -e '.[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
