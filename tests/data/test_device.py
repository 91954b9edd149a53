"""Ready for an accelerator that is not here: no device mismatch, no wait of the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.host_syncs import HostSyncs
from support.pictures import MEAN, STD, make_stream, random_pictures
from torch._subclasses.fake_tensor import FakeTensorMode

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
WAYS = {"blanks": ALL, "noise": NOISE, "bytes": {**ALL, "cutout": 0, "erase_prob": 0.0}}


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
    with FakeTensorMode(), HostSyncs() as syncs:
        torch.empty(3, device="cuda").cpu()
    assert len(syncs.found) == 1


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple):
        return [t for v in value for t in tensors(v)]
    if hasattr(value, "__dataclass_fields__"):
        return tensors(tuple(getattr(value, name) for name in value.__dataclass_fields__))
    return []


def test_draws_are_made_on_the_host_and_uploaded() -> None:
    draws = make_stream(random_pictures(48), ALL, device=torch.device("meta"))._draw(0)
    assert len(tensors(draws)) == 3 + 2 + 2 + 3 + 1 + 6
    assert {t.device.type for t in tensors(draws)} == {"meta"}
    draws = make_stream(random_pictures(48), NOISE, device=torch.device("meta"))._draw(0)
    assert len(tensors(draws)) == 3 + 2 + 2 + 3 + 1 + 6
    assert {t.device.type for t in tensors(draws)} == {"meta"}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("image_size", [32, 224])
@pytest.mark.parametrize("augment", WAYS.values(), ids=WAYS)
def test_runs_on_a_fake_gpu(image_size: int, channels_last: bool, augment: dict[str, Any]) -> None:
    real = random_pictures(48)
    cuda = torch.device("cuda")
    host = make_stream(real, augment)
    draws = host._draw(0)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        pixels = torch.empty(48, 3, 32, 32, dtype=torch.uint8, device=cuda)
        fake = ImageSet(pixels, real.labels, real.ids, real.classes, "")
        stream = make_stream(fake, augment, image_size=image_size, channels_last=channels_last, device=cuda)

        # The draws are host work on real values; everything that they feed is checked on the fake device.
        def to_cuda(value: object) -> object:
            if isinstance(value, torch.Tensor):
                return mode.from_tensor(value).to(cuda)
            if isinstance(value, tuple):
                return tuple(map(to_cuda, value))
            if hasattr(value, "__dataclass_fields__"):
                return type(value)(*(to_cuda(getattr(value, name)) for name in value.__dataclass_fields__))
            return value

        stream._draws, stream._epoch = to_cuda(draws), 0
        stream._mixer.start_epoch(stream._draws.mix)
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
    assert batch.images.shape == (4, 3, image_size, image_size)
    assert {t.device.type for t in (*tensors(batch), *tensors(first), loss)} == {"cuda"}
