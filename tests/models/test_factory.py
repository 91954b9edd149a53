"""From the `model` section to a network with its initial weights, and what is said when it cannot be built."""

import logging
import math
import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from cifar_lab.models.factory import ModelError, build_meta, build_model, num_parameters, own_normalisation
from cifar_lab.models.weights import read_weights
from cifar_lab.recipe.schema import Model

SMALL_VIT = {"width": 16, "depth": 2, "heads": 2}
TIMM_VIT = {"arch": "test_vit"}  # timm's own test model: 160 px, patch 16


def lite0_weights() -> Path:
    default = Path(__file__).parents[3] / "shared" / "weights"
    path = Path(os.environ.get("CIFAR_LAB_WEIGHTS", default)) / "tf_efficientnet_lite0.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not there (set CIFAR_LAB_WEIGHTS to its folder)")
    return path


def save(model: torch.nn.Module, path: Path, **changes) -> str:
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()} | changes
    save_file({k: v for k, v in tensors.items() if v is not None}, path)
    return str(path)


def same(a: torch.nn.Module, b: torch.nn.Module, *, but: str = "") -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items() if not (but and k.startswith(but)))


@pytest.mark.parametrize(
    "model",
    [
        Model(name="resnet", args={"width": 4}),
        Model(name="vit", args=SMALL_VIT),
        Model(name="timm_zoo", args=TIMM_VIT),
    ],
    ids=lambda model: model.name,
)
def test_initial_weights_follow_from_the_seed_alone(model):
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    first = build_model(model, 10, 32, seed=1)
    assert torch.equal(torch.rand(1), expected_draw)
    again = build_model(model, 10, 32, seed=1)
    assert same(first, again)
    assert not same(first, build_model(model, 10, 32, seed=2))


def test_meta_build_allocates_nothing_and_counts():
    model = build_meta(Model(name="resnet", args={"depth": 34}, weights="not_there.safetensors"), 10, 32)
    assert all(t.device.type == "meta" for t in [*model.parameters(), *model.buffers()])
    assert num_parameters(model) == 21_282_122
    timm_model = build_meta(Model(name="timm_zoo", args=TIMM_VIT), 10, 32)
    assert {t.device.type for t in timm_model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "args"), [("resnet", {"width": 4}), ("vit", SMALL_VIT), ("timm_zoo", TIMM_VIT)], ids=lambda v: str(v)
)
def test_round_trip_through_a_file_and_a_run_directory(name, args, tmp_path):
    source = build_model(Model(name=name, args=args), 10, 32, seed=1)
    weights = save(source, tmp_path / "model.safetensors")
    for place in (weights, str(tmp_path)):
        assert same(build_model(Model(name=name, args=args, weights=place), 10, 32, seed=2), source)
    skipped = build_model(Model(name=name, args=args, weights=weights), 10, 32, seed=2, pretrained_ok=False)
    assert not same(skipped, source)


@pytest.mark.parametrize(("name", "args"), [("resnet", {"width": 4}), ("timm_zoo", TIMM_VIT)], ids=lambda v: str(v))
def test_classifier_of_another_shape_is_new(name, args, tmp_path, caplog):
    source = build_model(Model(name=name, args=args), 10, 32, seed=1)
    weights = save(source, tmp_path / "model.safetensors")
    with caplog.at_level(logging.INFO, logger="cifar_lab"):
        model = build_model(Model(name=name, args=args, weights=weights), 7, 32, seed=2)
    assert same(source, model, but="head.")
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    # As initialised as without weights, and the same in every process.
    fresh = build_model(Model(name=name, args=args), 7, 32, seed=2)
    assert torch.equal(model.head.weight, fresh.head.weight)
    (message,) = (record.message for record in caplog.records if record.name == "cifar_lab")
    width = source.head.in_features
    assert message.endswith(f"the classifier is new (in the weights: head.weight (10, {width}), head.bias (10,))")


def test_weights_without_a_classifier_get_a_new_one(tmp_path):
    source = build_model(Model(name="timm_zoo", args=TIMM_VIT), 10, 32, seed=1)
    weights = save(source, tmp_path / "a.safetensors", **{"head.weight": None, "head.bias": None})
    assert same(build_model(Model(name="timm_zoo", args=TIMM_VIT, weights=weights), 10, 32, seed=2), source, but="head")


def test_position_embedding_of_another_image_size_is_resized(tmp_path):
    from timm.layers import resample_abs_pos_embed

    for name, args in (("timm_zoo", TIMM_VIT), ("vit", {**SMALL_VIT, "patch_size": 16})):
        source = build_model(Model(name=name, args=args), 10, 160, seed=1)
        weights = save(source, tmp_path / "a.safetensors")
        model = build_model(Model(name=name, args=args, weights=weights), 10, 64, seed=2)
        prefix = getattr(model, "num_prefix_tokens", 0) if name == "timm_zoo" else 0
        expected = resample_abs_pos_embed(source.pos_embed, [4, 4], num_prefix_tokens=prefix)
        torch.testing.assert_close(model.pos_embed.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
        assert same(model, source, but="pos_embed")


def test_half_precision_weights_are_read_as_fp32_and_counters_as_they_are(tmp_path):
    source = build_model(Model(name="resnet", args={"width": 4}), 10, 32, seed=1)
    weights = read_weights(save(source.half(), tmp_path / "a.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}
    section = Model(name="resnet", args={"width": 4}, weights=str(tmp_path / "a.safetensors"))
    assert {p.dtype for p in build_model(section, 10, 32, seed=2).parameters()} == {torch.float32}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, value):
    args = {"name": "resnet", "args": {"width": 4}}
    model = build_model(Model(**args), 10, 32, seed=1)
    file = save(model, tmp_path / "a.safetensors")
    assert read_weights(file).keys() == model.state_dict().keys()
    broken = [name for name in model.state_dict() if name.endswith("running_var")][-1]
    model.state_dict()[broken][-1] = value
    file = save(model, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=rf"{file} holds NaN or infinite values \(1 of .* the first is {broken}\)"):
        build_model(Model(**args, weights=file), 10, 32, seed=2)


def test_weights_are_held_once(tmp_path):
    source = build_model(Model(name="timm_zoo", args=TIMM_VIT), 10, 32, seed=1)
    model = build_model(
        Model(name="timm_zoo", args=TIMM_VIT, weights=save(source, tmp_path / "a.safetensors")), 10, 32, seed=2
    )
    assert "state_dict" not in model.pretrained_cfg


@pytest.mark.parametrize(("name", "args"), [("resnet", {"width": 4}), ("timm_zoo", {"arch": "test_resnet"})])
def test_weights_that_do_not_fit_name_the_tensors(name, args, tmp_path):
    model = Model(name=name, args=args)
    source = build_model(model, 10, 32, seed=1)

    def attempt(**changes):
        weights = save(source, tmp_path / "a.safetensors", **changes)
        with pytest.raises(ModelError, match=r"^model\.weights do not fit") as caught:
            build_model(model.model_copy(update={"weights": weights}), 10, 32, seed=1)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert 'Missing key(s) in state_dict: "bn1.bias"' in attempt(**{"bn1.bias": None})
    assert 'Unexpected key(s) in state_dict: "extra.weight"' in attempt(**{"extra.weight": torch.zeros(1)})
    assert "size mismatch for bn1.bias: copying a param with shape torch.Size([3])" in attempt(
        **{"bn1.bias": torch.zeros(3)}
    )
    everything = attempt(**{name: None for name in source.state_dict() if not name.startswith("head.")})
    assert everything.endswith(" ...") and len(everything) < 400


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"x")
    (tmp_path / "torn.safetensors").write_bytes(b"\x00\x01")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "run").mkdir()
    for place, message in {
        "weights.pth": "weights.pth cannot be read",
        "torn.safetensors": "torn.safetensors cannot be read",
        "empty.safetensors": "empty.safetensors cannot be read",
        "none.safetensors": "none.safetensors cannot be read: No such file",
        "run": "run/model.safetensors cannot be read: No such file",
    }.items():
        with pytest.raises(ModelError, match=message):
            build_model(Model(name="vit", args=SMALL_VIT, weights=str(tmp_path / place)), 10, 32, seed=1)


def test_pretrained_without_network_fails_fast(monkeypatch, tmp_path):
    """A closed port stands for a hub out of reach."""
    constants = "huggingface_hub.constants."
    monkeypatch.setattr(constants + "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants + "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    model = Model(name="timm_zoo", args={"arch": "test_vit3"}, pretrained=True)
    downloads, download = [], huggingface_hub.hf_hub_download

    def counted(*args):
        downloads.append(args)
        return download(*args)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", counted)
    with pytest.raises(ModelError, match=r"test_vit3 \(.*refused.*\): run scripts/fetch_weights\.py .* model\.weights"):
        build_model(model, 10, 160, seed=1)
    assert downloads == [], "hf_hub_download retries a host that cannot be reached"


def test_pretrained_weights_come_from_the_cache(monkeypatch, tmp_path):
    """The hub's cache layout, as scripts/fetch_weights.py leaves it, is enough without network."""
    source = build_model(Model(name="timm_zoo", args=TIMM_VIT), 1000, 160, seed=1)
    repo = tmp_path / "models--timm--test_vit.r160_in1k"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    save(source, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = build_model(Model(name="timm_zoo", args=TIMM_VIT, pretrained=True), 10, 160, seed=2)
    assert same(source, model, but="head.")


def test_normalisation_of_initial_weights():
    half = (0.5, 0.5, 0.5)
    args = {"arch": "vit_tiny_patch16_224"}
    for initial in ({"pretrained": True}, {"weights": "a.safetensors"}):
        mean, std, source = own_normalisation(Model(name="timm_zoo", args=args, **initial))
        assert (mean, std) == (half, half)
        assert source == "the weights published of vit_tiny_patch16_224, which were trained at 224 px"
    assert own_normalisation(Model(name="timm_zoo", args=args)) is None
    assert own_normalisation(Model(name="vit", weights="a.safetensors")) is None


def test_real_pretrained_weights():
    path = lite0_weights()
    section = Model(name="timm_zoo", args={"arch": "tf_efficientnet_lite0"}, weights=str(path))
    published = load_file(path)
    model = build_model(section, 1000, 32, seed=0).eval()
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    assert all(torch.equal(v, published[k].to(v.dtype)) for k, v in model.state_dict().items() if k in published)
    ten = build_model(section, 10, 32, seed=0).eval()
    assert same(ten, model, but="classifier.")
    assert ten(torch.randn(2, 3, 32, 32)).shape == (2, 10)
