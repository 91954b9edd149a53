"""The stream is a pure function of (seed, step, micro-batch), the same in every layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.pictures import MEAN, STD, make_stream, random_pictures, whole_batch

from cifar_lab.data.mixing import draw_pairs
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import EvalStream
from cifar_lab.recipe.augment import Augment

DATA = random_pictures(60)
CROP_FLIP = {"crop_padding": 4, "flip": True}
ALL = {
    **CROP_FLIP,
    "padding_mode": "reflect",
    "cutout": 8,
    "erase_prob": 0.5,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "randaugment_ops": 2,
}
NOISE = {**ALL, "cutout": 0, "erase_value": "random", "randaugment_prob": 0.5, "randaugment_std": 0.5}
BOXED = {
    **NOISE,
    "crop_padding": 0,
    "padding_mode": "zero",
    "random_resized_crop": (0.2, 1.0),
    "vertical_flip": True,
    "rotation": 20.0,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
}


def same(a: Any, b: Any) -> bool:
    return all(x is y or torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("augment", [{}, CROP_FLIP, ALL, NOISE, BOXED])
@pytest.mark.parametrize("image_size", [32, 48])
def test_the_same_pictures_in_every_layout(augment: dict[str, Any], image_size: int) -> None:
    reference = whole_batch(make_stream(DATA, augment, image_size=image_size, micro_batch=12), 6)
    for micro_batch in (2, 4, 6):
        stream = make_stream(DATA, augment, image_size=image_size, micro_batch=micro_batch)
        assert same(whole_batch(stream, 6), reference)
    # Ranks ask for their own micro-batches only, in any order.
    stream = make_stream(DATA, augment, image_size=image_size, micro_batch=4)
    stream.micro_batch(0, 1)
    assert torch.equal(stream.micro_batch(6, 2).images, reference[0][8:])
    assert torch.equal(stream.micro_batch(6, 0).images, reference[0][:4])


def test_another_global_batch_gives_the_same_pictures_in_the_same_order() -> None:
    epochs = []
    for global_batch in (12, 20):
        stream = make_stream(DATA, ALL, global_batch=global_batch)
        parts = [whole_batch(stream, step) for step in range(stream.steps_per_epoch)]
        epochs.append([torch.cat(t) for t in zip(*parts, strict=True)])
    assert same(*epochs)


def test_resume_at_any_step_and_seeds() -> None:
    stream = make_stream(DATA, ALL)
    batches = [whole_batch(stream, step) for step in range(12)]
    for step in (11, 5, 4, 0):
        assert same(whole_batch(make_stream(DATA, ALL), step), batches[step])
    assert not torch.equal(whole_batch(make_stream(DATA, ALL, seed=1), 0)[2], batches[0][2])


def test_an_epoch_visits_every_sample_once_and_drops_the_remainder() -> None:
    stream = make_stream(DATA, global_batch=16)
    assert stream.steps_per_epoch == 3
    ids = torch.cat([whole_batch(stream, step)[2] for step in range(3)])
    assert len(ids.unique()) == 48
    stream = make_stream(DATA, CROP_FLIP)
    for epoch in range(2):
        parts = [whole_batch(stream, 5 * epoch + k) for k in range(5)]
        ids = torch.cat([p[2] for p in parts])
        assert torch.equal(ids.sort().values, DATA.ids)
        assert torch.equal(torch.cat([p[1] for p in parts]), (ids - 5) // 3 % 10)


@pytest.mark.parametrize("settings", [ALL, NOISE, BOXED])
def test_draws_belong_to_ids_not_to_positions(settings: dict[str, Any]) -> None:
    augment = {**settings, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}
    half = DATA.subset(DATA.ids[1::2].clone())
    pictures = {}
    for name, data, batch in (("all", DATA, 60), ("half", half, 30)):
        images, _, ids, _ = whole_batch(make_stream(data, augment, global_batch=batch, micro_batch=10), 0)
        pictures[name] = dict(zip(ids.tolist(), images, strict=True))
    assert len(pictures["half"]) == 30
    assert all(torch.equal(image, pictures["all"][i]) for i, image in pictures["half"].items())


def test_without_augmentation_pictures_are_the_normalised_originals() -> None:
    images, labels, ids, own = whole_batch(make_stream(DATA), 0)
    position = torch.searchsorted(DATA.ids, ids)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    assert torch.allclose(images, (DATA.images[position] / 255 - mean) / std, atol=1e-5)
    assert torch.equal(labels, DATA.labels[position])
    assert own is None


def flips(stream: Any, epoch: int) -> dict[int, bool]:
    steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
    found = {}
    for step in steps:
        images, _, ids, _ = whole_batch(stream, step)
        for image, i in zip(images, ids.tolist(), strict=True):
            original = DATA.images[(i - 5) // 3] / 255
            found[i] = torch.allclose(image, original.flip(-1), atol=1e-5)
            assert found[i] or torch.allclose(image, original, atol=1e-5)
    return found


def test_flips() -> None:
    identity = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    alternating = make_stream(DATA, {"flip": "alternating"}, **identity)
    epochs = [flips(alternating, epoch) for epoch in range(4)]
    assert epochs[0] == epochs[2] == {i: not f for i, f in epochs[1].items()}
    assert epochs[1] == epochs[3]
    assert 15 < sum(epochs[0].values()) < 45
    random = make_stream(DATA, {"flip": True}, **identity)
    epochs = [flips(random, epoch) for epoch in range(4)]
    assert 90 < sum(sum(e.values()) for e in epochs) < 150
    assert epochs[0] != epochs[1] != epochs[2]


def test_offsets_are_uniform() -> None:
    # One bright pixel in the middle shows where the crop was taken.
    data = random_pictures(3000, 9, 9)
    data.images.zero_()
    data.images[:, :, 4, 4] = 255
    stream = make_stream(data, {"crop_padding": 2}, global_batch=3000, micro_batch=3000, mean=(0, 0, 0), std=(1, 1, 1))
    place = stream.micro_batch(0, 0).images[:, 0].flatten(1).argmax(dim=1)
    counts = (place // 9 - 2) * 5 + place % 9 - 2
    counts = counts.bincount(minlength=25)
    assert len(counts) == 25
    assert ((counts - 120) ** 2 / 120).sum() < 51  # 0.1 % of 24 degrees of freedom


def test_blanks_and_mixing_reach_the_pictures() -> None:
    cut, _, _, _ = whole_batch(make_stream(DATA, {"cutout": 8}), 0)
    blank = (cut == 0).all(dim=1).flatten(1).sum(dim=1)
    assert bool(((blank >= 16) & (blank <= 64)).all())
    erased, _, _, _ = whole_batch(make_stream(DATA, {"erase_prob": 1.0}), 0)
    assert bool(((erased == 0).all(dim=1).flatten(1).sum(dim=1) >= 15).all())
    plain, _, _, _ = whole_batch(make_stream(DATA), 0)
    noisy, _, _, _ = whole_batch(make_stream(DATA, {"erase_prob": 1.0, "erase_value": "random"}), 0)
    at_zero = (erased == 0).all(dim=1, keepdim=True).expand_as(noisy)  # nearly the same place: a picture has few zeros
    assert torch.equal(noisy[~at_zero], plain[~at_zero])
    assert 1.0 < noisy[at_zero].std() < 1.3  # of uniform bytes, normalised: 255 / sqrt(12) / (255 * 0.25)
    mixed, _, ids, own = whole_batch(make_stream(DATA, {"mixup_alpha": 1.0}), 0)
    lam = own.view(-1, 1, 1, 1)
    partner = plain.view(6, 2, 3, 32, 32).flip(1).view_as(plain)
    assert torch.allclose(mixed, lam * plain + (1 - lam) * partner, atol=1e-5)
    assert torch.equal(own[::2], own[1::2])
    first = draw_pairs(Augment(mixup_alpha=1.0), (32, 32), ids[::2], 0, 0)
    assert torch.equal(own[::2], first.own_weight), "what is drawn for a pair is drawn for its first picture"


def test_resize_is_the_last_step_and_memory_formats_agree() -> None:
    small, _, _, _ = whole_batch(make_stream(DATA, ALL), 1)
    for channels_last in (False, True):
        stream = make_stream(DATA, ALL, image_size=80, channels_last=channels_last)
        assert stream.micro_batch(1, 0).images.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        large, _, _, _ = whole_batch(stream, 1)
        assert (large - F.interpolate(small, (80, 80), mode="bicubic", antialias=True)).abs().max() < 1e-5
    small_last, _, _, _ = whole_batch(make_stream(DATA, ALL, channels_last=True), 1)
    assert torch.equal(small_last, small)


def test_the_buffer_is_kept_and_threads_change_nothing() -> None:
    stream = make_stream(DATA, ALL, image_size=64)
    assert stream.micro_batch(0, 0).images.data_ptr() == stream.micro_batch(0, 1).images.data_ptr()
    expected = whole_batch(stream, 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    try:
        assert same(whole_batch(make_stream(DATA, ALL, image_size=64), 0), expected)
    finally:
        torch.set_num_threads(threads)


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch even"):
        make_stream(DATA, {"mixup_alpha": 1.0}, global_batch=15, micro_batch=5)
    with pytest.raises(ValueError, match="exceeds the 60 training images"):
        make_stream(DATA, global_batch=64)


@pytest.mark.parametrize("count", [60, 53, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_sample_once(count: int, world_size: int) -> None:
    data = DATA.subset(DATA.ids[60 - count :])
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    seen, lengths, composition = [], set(), []
    for rank in range(world_size):
        stream = EvalStream(
            data,
            Preparation(32, "bicubic", MEAN, STD),
            batch=8,
            device=torch.device("cpu"),
            rank=rank,
            world_size=world_size,
        )
        lengths.add(len(stream))
        batches = 0
        for batch in stream:
            batches += 1
            position = (batch.ids - 5) // 3
            assert torch.equal(batch.labels, position % 10)
            assert torch.allclose(batch.images, (DATA.images[position] / 255 - mean) / std, atol=1e-5)
            real = batch.ids[batch.weight == 1].tolist()
            seen += real
            composition += [real] if real else []
        assert batches == len(stream)
    assert len(lengths) == 1
    assert sorted(seen) == data.ids.tolist()
    # What is in a batch does not depend on the number of ranks.
    assert sorted(composition) == [ids.tolist() for ids in data.ids.split(8)]
