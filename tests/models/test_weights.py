"""Initial weights as other programs write them."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from cifar_lab.models.factory import build_model
from cifar_lab.models.weights import without_prefix
from cifar_lab.recipe.schema import Model


@pytest.mark.parametrize("front", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model."])
@pytest.mark.parametrize("family", ["resnet", "timm_zoo", "torchvision_zoo"])
def test_what_a_wrapper_put_in_front_of_every_name_is_left_out(tmp_path, caplog, front, family):
    archs = {"timm_zoo": "test_vit3", "torchvision_zoo": "squeezenet1_1"}
    args = {"arch": archs[family]} if family in archs else {"depth": 18, "width": 2}
    model = Model(name=family, args=args)
    source = build_model(model, 10, 160, seed=1)
    save_file(
        {front + name: tensor.clone() for name, tensor in source.state_dict().items()}, tmp_path / "a.safetensors"
    )
    caplog.handler.level = logging.INFO
    with caplog.at_level(logging.INFO, "cifar_lab"):
        built = build_model(model.model_copy(update={"weights": str(tmp_path / "a.safetensors")}), 10, 160, seed=2)
    assert all(torch.equal(tensor, built.state_dict()[name]) for name, tensor in source.state_dict().items())
    assert f"initial weights: `{front}` in front of every name is left out" in caplog.text


def test_a_front_that_is_the_models_own_stays():
    own = ["model.a", "model.b"]
    for front in ("", "module.", "model."):
        assert list(without_prefix({front + name: torch.zeros(1) for name in own}, own)) == own
    assert list(without_prefix({"model.a": torch.zeros(1), "b": torch.zeros(1)}, ["a", "b"])) == ["model.a", "b"]
    assert without_prefix({}, own) == {}
