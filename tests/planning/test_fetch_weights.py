"""scripts/fetch_weights.py with real weights that are here already, and without network."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from cifar_lab.models.families import timm_zoo
from cifar_lab.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT.parent / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"
RECIPE = str(ROOT / "recipes" / "vit_tiny.yaml")
LITE = "model.args.arch=tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fetch_weights", ROOT / "scripts" / "fetch_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def weights() -> Path:
    if not WEIGHTS.exists():
        pytest.skip(f"{WEIGHTS} is not there: no published weights")
    return WEIGHTS


def test_fetched_weights_become_a_file_and_a_line(script, weights, tmp_path, monkeypatch, capsys) -> None:
    """The hub's cache is stood in for by a file that is named by its sha256, as there."""
    blob = tmp_path / script.sha256(weights)
    shutil.copyfile(weights, blob)
    cached = tmp_path / "model.safetensors"
    cached.symlink_to(blob)
    monkeypatch.setattr(timm_zoo, "pretrained_file", lambda arch: cached)
    for _ in range(2):  # the second finds it in its place
        assert script.main([RECIPE, LITE, "--to", str(tmp_path / "weights")]) == 0
        placed = tmp_path / "weights" / "tf_efficientnet_lite0.safetensors"
        assert placed.read_bytes() == weights.read_bytes()
        assert [path.name for path in placed.parent.iterdir()] == [placed.name]
    text = capsys.readouterr().out
    overrides = re.findall(r"on the command line: (.*)", text)[-1].split()
    assert load_recipe(RECIPE, [LITE, *overrides]).model.weights == str(placed)
    assert f"  weights: {placed}\n" in text

    blob.write_bytes(blob.read_bytes()[:-4] + b"abcd")
    assert script.main([RECIPE, LITE, "--to", str(tmp_path / "weights")]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_files_are_checked(script, weights, tmp_path, capsys) -> None:
    assert script.main([RECIPE, LITE, "--file", str(weights)]) == 0
    assert "3,383,818 parameters, sha256 5647cc94b3e8" in capsys.readouterr().out
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(weights.read_bytes()[:1_000_000])
    for arguments, message in (
        ([RECIPE, LITE, "--file", str(torn)], "torn.safetensors cannot be read"),
        (
            [RECIPE, "--file", str(weights)],
            "do not fit vit_tiny_patch16_224: Missing key(s) in state_dict: ",
        ),
        ([RECIPE, LITE, "--file", str(tmp_path / "none.safetensors")], "No such file"),
    ):
        assert script.main(arguments) != 0
        output = capsys.readouterr()
        assert message in output.err
        assert len(output.err.splitlines()) == 1
        assert output.out == ""


def test_without_network(script, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert script.main([RECIPE]) == 2
    message = capsys.readouterr().err
    assert message.startswith("cannot reach the weights of vit_tiny_patch16_224 (")
    assert message.endswith("run this on a machine with network\n")
    assert not list(tmp_path.iterdir())
    assert script.main([str(ROOT / "recipes" / "resnet18.yaml")]) == 2
    assert "resnet has no published weights" in capsys.readouterr().err
