"""The ways in from Python."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from support.saved_runs import picture, pictures_of, predictions, saved_run

import cifar_lab
from cifar_lab.trained.model import open_saved
from cifar_lab.trained.network import load_network


@pytest.mark.parametrize("run", ["vit", "net"])
def test_a_loaded_model_predicts_as_its_run_did(run):
    net, prepare = cifar_lab.load_model(saved_run(run).path)
    assert not net.training
    images, kept = pictures_of(run), predictions(run)
    of_pictures = net(prepare([picture(pixels) for pixels in images.images]))
    of_a_batch = net(prepare(images.images))
    assert torch.equal(of_pictures, of_a_batch)
    assert np.mean(of_a_batch.argmax(1).numpy() == kept["predictions"]) > 0.9
    assert net.classes == images.classes
    with pytest.raises(ValueError, match="uint8"):
        prepare(images.images.float())


@pytest.mark.parametrize(("run", "bf16"), [("vit", False), ("net", True)])
def test_its_logits_are_those_of_predict_in_the_run_s_precision(run, bf16, tmp_path):
    net, prepare = cifar_lab.load_model(saved_run(run).path)
    pixels = pictures_of(run).images[:6]
    files = [tmp_path / f"{i}.png" for i in range(len(pixels))]
    for file, one in zip(files, pixels, strict=True):
        picture(one).save(file)
    logits, asked = net(prepare(pixels)), load_network(open_saved(saved_run(run).path))
    assert logits.dtype == torch.float32
    for row, (_, top) in zip(logits.softmax(1), asked.guess(files, len(net.classes)), strict=True):
        assert dict(top) == dict(zip(net.classes, row.tolist(), strict=True))
    with torch.no_grad():
        assert torch.equal(net.module(prepare(pixels)), logits) is not bf16


def test_what_the_package_offers_needs_no_torch_before_it_is_asked_for():
    code = "import sys, cifar_lab; cifar_lab.load_recipe('recipes/demo.yaml'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(cifar_lab.run)
    with pytest.raises(AttributeError, match="nothing"):
        cifar_lab.nothing  # noqa: B018
