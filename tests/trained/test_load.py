"""The ways in from Python."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from support.saved_runs import picture, pictures_of, predictions, saved_run

import cifar_lab


@pytest.mark.parametrize("run", ["vit", "net"])
def test_a_loaded_model_predicts_as_its_run_did(run):
    net, prepare = cifar_lab.load_model(saved_run(run).path)
    assert not net.training
    images, kept = pictures_of(run), predictions(run)
    with torch.no_grad():
        of_pictures = net(prepare([picture(pixels) for pixels in images.images]))
        of_a_batch = net(prepare(images.images))
    assert torch.equal(of_pictures, of_a_batch)
    assert np.mean(of_a_batch.argmax(1).numpy() == kept["predictions"]) > 0.9
    assert prepare.classes == images.classes
    with pytest.raises(ValueError, match="uint8"):
        prepare(images.images.float())


def test_what_the_package_offers_needs_no_torch_before_it_is_asked_for():
    code = "import sys, cifar_lab; cifar_lab.load_recipe('recipes/demo.yaml'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(cifar_lab.run)
    with pytest.raises(AttributeError, match="nothing"):
        cifar_lab.nothing  # noqa: B018
