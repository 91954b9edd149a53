"""Ready for an accelerator that is not here: no device mismatch, no wait of the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.host_syncs import HostSyncs
from support.pictures import MEAN, STD, make_stream, random_pictures
from torch._subclasses.fake_tensor import FakeTensorMode

from cifar_lab.data.epoch_draws import DrawsAhead
from cifar_lab.data.images import ImageSet
from cifar_lab.data.mixing import soft_cross_entropy
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import EvalStream

ALL = {
    "crop_padding": 4,
    "padding_mode": "reflect",
    "flip": "alternating",
    "cutout": 8,
    "erase_prob": 0.5,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "randaugment_ops": 2,
}
NOISE = {**ALL, "cutout": 0, "erase_value": "random", "randaugment_prob": 0.5, "randaugment_std": 0.5}
# CutMix is of bytes where nothing is blanked.
BOXED = {
    "random_resized_crop": (0.2, 1.0), "flip": True, "vertical_flip": True, "rotation": 20.0, "brightness": 0.4,
    "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "cutmix_alpha": 1.0,
}  # fmt: skip
WAYS = {"blanks": ALL, "noise": NOISE, "bytes": {**ALL, "cutout": 0, "erase_prob": 0.0}, "boxes": BOXED}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("image_size", [32, 224])
@pytest.mark.parametrize("augment", WAYS.values(), ids=WAYS)
def test_no_wait_within_an_epoch(image_size: int, channels_last: bool, augment: dict[str, Any]) -> None:
    stream = make_stream(random_pictures(48), augment, image_size=image_size, channels_last=channels_last)
    stream.micro_batch(0, 0)
    with HostSyncs() as syncs:
        for m in range(3):
            batch = stream.micro_batch(1, m)
            soft_cross_entropy(torch.zeros(4, 10), batch.labels, batch.own_weight, 0.1)
    assert syncs.found == []


def test_no_wait_in_the_evaluation_stream() -> None:
    stream = EvalStream(
        random_pictures(20), Preparation(224, "bicubic", MEAN, STD), batch=8, device=torch.device("cpu")
    )
    with HostSyncs() as syncs:
        for _ in stream:
            pass
    assert syncs.found == []


def test_the_counter_counts() -> None:
    x = torch.arange(4)
    with HostSyncs() as syncs:
        x.sum().item()
        x.nonzero()
        x[x > 1]
        x[x > 1] = 0
        x.repeat_interleave(x)
        x[:2] + x.index_select(0, torch.tensor([0, 1]))
    assert [name.split(".")[1] for name in syncs.found][:2] == ["_local_scalar_dense", "nonzero"]
    assert len(syncs.found) >= 5
    for wait in (
        lambda device: torch.empty(3, device="cuda").cpu(),
        lambda device: torch.empty(3).to("cuda", non_blocking=True),  # pageable
        lambda device: torch.empty(3).pin_memory().to("cuda"),  # waited for
        lambda device: torch.empty(1).pin_memory().expand(3).to("cuda", non_blocking=True),  # by way of a pageable copy
        lambda device: device.copy_(torch.empty(3)),
        lambda device: torch.tensor(3.0, device="cuda"),
        lambda device: device[[0, 1]],
    ):
        with FakeTensorMode(), HostSyncs() as syncs:
            wait(torch.empty(3, device="cuda"))
        assert syncs.found
    with FakeTensorMode(), HostSyncs() as syncs:
        torch.empty(3).pin_memory().to("cuda", non_blocking=True)
    assert syncs.found == []


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple):
        return [t for v in value for t in tensors(v)]
    if hasattr(value, "__dataclass_fields__"):
        return tensors(tuple(getattr(value, name) for name in value.__dataclass_fields__))
    return []


@pytest.mark.parametrize("augment", [ALL, NOISE])
def test_draws_are_made_on_the_host_and_uploaded(augment: dict[str, Any]) -> None:
    stream = make_stream(random_pictures(48), augment, device=torch.device("meta"))
    host, uploaded = stream._draw(0), stream._drawn(0)
    assert len(tensors(host)) == len(tensors(uploaded)) == 3 + 2 + 2 + 3 + 1 + 6
    assert {t.device.type for t in tensors(host)} == {"cpu"}
    assert {t.device.type for t in tensors(uploaded)} == {"meta"}


@pytest.mark.parametrize("augment", [{"mixup_alpha": 1.0}, *WAYS.values()], ids=["mixup", *WAYS])
def test_draws_are_uploaded_without_a_wait(augment: dict[str, Any]) -> None:
    """From pinned memory, in one piece, and not waited for: nothing is found on a CUDA device that is not there."""
    made = make_stream(random_pictures(48), augment)._draw(0)
    with FakeTensorMode(allow_non_fake_inputs=True), HostSyncs() as syncs:
        uploaded = DrawsAhead(lambda epoch: made, torch.device("cuda"), 0)(0)
    assert {t.device.type for t in tensors(uploaded)} == {"cuda"}
    assert syncs.found == []


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("image_size", [32, 224])
@pytest.mark.parametrize("augment", WAYS.values(), ids=WAYS)
def test_runs_on_a_fake_gpu(image_size: int, channels_last: bool, augment: dict[str, Any]) -> None:
    real = random_pictures(48)
    cuda = torch.device("cuda")
    host = make_stream(real, augment)
    draws = host._draw(0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        pixels = torch.empty(48, 3, 32, 32, dtype=torch.uint8, device=cuda)
        fake = ImageSet(pixels, real.labels, real.ids, real.classes, "")
        stream = make_stream(fake, augment, image_size=image_size, channels_last=channels_last, device=cuda)

        # The draws are host work on real values; everything that they feed is checked on the fake device.
        stream._drawn = DrawsAhead(lambda epoch: draws, cuda, 0)
        with HostSyncs() as syncs:
            batch = stream.micro_batch(0, 1)
        loss = soft_cross_entropy(torch.empty(4, 10, device=cuda), batch.labels, batch.own_weight)
        evaluation = EvalStream(
            fake.to(cuda),
            Preparation(image_size, "bicubic", MEAN, STD),
            batch=8,
            device=cuda,
            channels_last=channels_last,
        )
        first = next(iter(evaluation))
    assert syncs.found == []
    assert batch.images.shape == (4, 3, image_size, image_size)
    assert {t.device.type for t in (*tensors(batch), *tensors(first), loss)} == {"cuda"}
