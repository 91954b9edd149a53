"""torchvision's classifiers: the same numbers as torchvision's own, any number of classes, published weights by file.

Nothing here was fetched: download.pytorch.org cannot be reached from the tests. The files have the layout of
torchvision's own state dictionaries.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from cifar_lab.models import ModelError
from cifar_lab.models.coupling import coupling_layers
from cifar_lab.models.factory import build_meta, build_model, own_normalisation
from cifar_lab.models.families import torchvision_zoo
from cifar_lab.recipe import plugins
from cifar_lab.recipe.schema import Model

# One of each file of torchvision's that is quick to build.
SMALL = {"resnet18": 32, "densenet121": 32, "mnasnet0_5": 32, "squeezenet1_1": 32, "shufflenet_v2_x0_5": 32}
SMALL |= {"mobilenet_v3_small": 32, "efficientnet_b0": 32, "regnet_x_400mf": 32, "googlenet": 32, "inception_v3": 80}


def section(arch: str, **more: object) -> Model:
    return Model(name="torchvision_zoo", args={"arch": arch}, **more)


def test_every_classifier_and_its_weights_are_known_without_torchvision() -> None:
    for name in models.list_models(models):
        assert plugins.arch_problem("torchvision_zoo", name) is None
        for weights in models.get_model_weights(name).__members__:
            assert plugins.arch_problem("torchvision_zoo", f"{name}.{weights}") is None
        assert "has no weights tagged `IMAGENET1K_V9`" in str(
            plugins.arch_problem("torchvision_zoo", f"{name}.IMAGENET1K_V9")
        )
    for other in ("fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "r3d_18", "quantized_resnet18", "resnet180"):
        assert f"torchvision has no architecture `{other}`" in str(plugins.arch_problem("torchvision_zoo", other))


@pytest.mark.parametrize("arch", SMALL)
def test_the_same_weights_give_the_logits_of_torchvision_s_own(arch: str, tmp_path: Path) -> None:
    """Trained weights of torchvision come with `transform_input` for these two, and their auxiliary heads."""
    size = SMALL[arch]
    own = {"transform_input": True, "init_weights": False} if arch in ("googlenet", "inception_v3") else {}
    for seed in range(10 if arch in ("resnet18", "squeezenet1_1") else 1):
        torch.manual_seed(seed)
        original = models.get_model(arch, num_classes=12, **own).eval()
        save_file(original.state_dict(), tmp_path / "published.safetensors")
        loaded = build_model(section(arch, weights=str(tmp_path / "published.safetensors")), 12, size, seed=seed).eval()
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert torch.equal(loaded(images), original(images))
            loaded.train()
            assert loaded(images).shape == (2, 12)


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "mnasnet0_5", "squeezenet1_1", "inception_v3"])
def test_another_number_of_classes_gets_a_new_head_and_only_that(arch: str, tmp_path: Path) -> None:
    size, file = SMALL[arch], tmp_path / "published.safetensors"
    original = models.get_model(arch, num_classes=12, **({"init_weights": False} if "ncep" in arch else {}))
    save_file(original.state_dict(), file)
    loaded = build_model(section(arch, weights=str(file)), 3, size, seed=1)
    fresh, before = build_model(section(arch), 3, size, seed=1).state_dict(), original.state_dict()
    new = [name for name, tensor in loaded.state_dict().items() if not torch.equal(tensor, before[name])]
    assert 1 <= len(new) <= 2
    assert all(torch.equal(loaded.state_dict()[name], fresh[name]) for name in new)
    loaded.load_state_dict(dict(fresh))  # as evaluate and predict do, of files that tell no version
    assert build_meta(section(arch), 3, size).state_dict().keys() == fresh.keys()


def test_densenet_s_published_names_are_old(tmp_path: Path) -> None:
    original = models.densenet121(num_classes=2)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in original.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    save_file(old, tmp_path / "old.safetensors")
    loaded = build_model(section("densenet121", weights=str(tmp_path / "old.safetensors")), 2, 32, seed=0)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in original.state_dict().items())


def test_a_vit_s_positions_are_resized_as_torchvision_does_it() -> None:
    original = models.vit_b_32(image_size=64, num_classes=2).state_dict()
    loaded = torchvision_zoo.build_with_weights(dict(original), 2, 96, arch="vit_b_32")
    expected = models.vision_transformer.interpolate_embeddings(96, 32, original.copy())
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in expected.items())
    assert loaded.encoder.pos_embedding.shape[1] == 10


@pytest.mark.parametrize(
    ("arch", "size", "said"),
    [
        ("inception_v3", 32, "cannot build inception_v3 for data.image_size=32: Calculated padded input size"),
        ("vit_b_32", 40, "data.image_size=40: Input shape indivisible by patch size!"),
        ("no_such_net", 32, "Unknown model no_such_net"),
    ],
)
def test_what_it_cannot_take_is_one_line(arch: str, size: int, said: str) -> None:
    with pytest.raises(ModelError, match=re.escape(said)):
        build_meta(section(arch), 10, size)


def test_stochastic_depth_ties_the_result_to_the_micro_batch() -> None:
    """Swin has neither batch norm nor a layer that is called Drop..."""
    assert coupling_layers(build_meta(section("swin_t"), 10, 32)) == ["StochasticDepth"]
    assert coupling_layers(build_meta(section("vit_b_32"), 10, 32)) == []


def test_published_weights_from_torch_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the place and of the kind that torchvision's own loader makes; safetensors lie beside it then."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    arch = "squeezenet1_1.IMAGENET1K_V1"
    place = tmp_path / "hub" / "checkpoints" / models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    original = models.squeezenet1_1()
    torch.save(original.state_dict(), place)
    loaded = build_model(section(arch, pretrained=True), 1000, 64, seed=3)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in original.state_dict().items())
    assert torchvision_zoo.pretrained_file(arch, local_only=True) == place.with_suffix(".safetensors")
    mean, std, source = own_normalisation(section(arch, pretrained=True)) or ((), (), "")
    assert (mean, std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert source == f"the weights published of {arch}, which were trained at 224 px"


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("trapped"),))  # type: ignore[return-value]


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    url = models.ResNet18_Weights.DEFAULT.url
    place = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save({"weight": Trap()}, place)
    with pytest.raises(ModelError, match="cannot get the weights of resnet18"):
        torchvision_zoo.pretrained_file("resnet18")
    assert not (tmp_path / "trapped").exists()


def test_without_network_the_message_says_what_to_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers
    with pytest.raises(ModelError) as caught:
        torchvision_zoo.pretrained_file("resnet50")
    url = models.ResNet50_Weights.IMAGENET1K_V2.url
    assert f"put {url} into {tmp_path / 'hub' / 'checkpoints'}, or set model.weights" in str(caught.value)
    assert str(caught.value).count("\n") == 0
