"""On a machine without a GPU: forward and loss of every family on a fake one, where a mixed device raises."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from cifar_lab.models.factory import build_meta
from cifar_lab.recipe.plugins import FAMILIES
from cifar_lab.recipe.schema import Model

ARGS = {
    "plainnet": {"width": 4},
    "resnet": {"width": 4},
    "resnet_multiscale": {"width": 4},
    "speednet": {"width": 4},
    "vit": {"width": 16, "depth": 2, "heads": 2, "dropout": 0.1, "drop_path": 0.1},
    "timm_zoo": {"arch": "vit_tiny_patch16_224", "patch_size": 4, "drop_path": 0.1},
    "torchvision_zoo": {"arch": "mobilenet_v3_small"},
}


def move_to_fake_cuda(model: nn.Module) -> None:
    """Replace meta tensors by fake ones; timm's constructors read values, so they cannot run on fake tensors."""
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    kind[name] = nn.Parameter(fake) if kind is module._parameters else fake


def test_every_family_is_covered():
    assert sorted(ARGS) == FAMILIES.names()


@pytest.mark.parametrize("family", ARGS)
def test_forward_and_loss(family):
    model = build_meta(Model(name=family, args=ARGS[family]), 10, 32)
    with FakeTensorMode():
        move_to_fake_cuda(model)
        model.train()
        images = torch.empty(4, 3, 32, 32, device="cuda")
        logits = model(images)
        loss = F.cross_entropy(logits, torch.empty(4, dtype=torch.int64, device="cuda"))
        assert logits.shape == (4, 10)
        assert loss.device.type == "cuda"
        with pytest.raises(RuntimeError):
            model(torch.empty(4, 3, 32, 32, device="cpu"))
