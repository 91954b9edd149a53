"""Crop, flip, normalisation and rectangles against slow code that does one picture at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.pictures import MEAN, STD, random_pictures
from torch import Tensor

from cifar_lab.data import augment
from cifar_lab.data.augment import CropFlip, Normalize, write_channels_last
from cifar_lab.data.randomness import Purpose, draw, hash64, integers
from cifar_lab.data.rectangles import draw_blanks, draw_cutout, draw_erasing, draw_noise, fill_noise_, mask_sides
from cifar_lab.recipe.augment import Augment

CPU = torch.device("cpu")


def slow_crop(image: Tensor, padding: int, mode: str, dy: int, dx: int, flip: int) -> Tensor:
    """Pad, slice, then flip."""
    height, width = image.shape[-2:]
    padded = F.pad(image.float(), [padding] * 4, mode="constant" if mode == "zero" else mode).to(torch.uint8)
    crop = padded[:, dy : dy + height, dx : dx + width]
    return crop.flip(-1) if flip else crop


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize(("height", "width", "padding"), [(32, 32, 4), (9, 14, 3), (8, 6, 0)])
@pytest.mark.parametrize(("micro_batch", "chunk"), [(20, 20), (20, 8), (10, 10)])
@pytest.mark.parametrize("no_overlap", [(), ("cpu",)])
def test_crop_and_flip_equal_the_slow_way(
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    height: int,
    width: int,
    padding: int,
    micro_batch: int,
    chunk: int,
    no_overlap: tuple[str, ...],
) -> None:
    monkeypatch.setattr(augment, "NO_OVERLAP", no_overlap)
    images = random_pictures(10, height, width).images
    crop = CropFlip(images, Augment(crop_padding=padding, padding_mode=mode), micro_batch=micro_batch, chunk=chunk)
    offsets = range(2 * padding + 1)
    cases = torch.tensor([(dy, dx, flip) for dy in offsets for dx in offsets for flip in range(2)])
    cases = cases[torch.arange(3 * len(cases)) * 7 % len(cases)]
    cases = cases[: len(cases) // micro_batch * micro_batch] if len(cases) >= micro_batch else cases.repeat(10, 1)[:20]
    index = torch.arange(len(cases)) * 3 % 10
    draws = crop.arrange(index, *cases.unbind(1))
    for first in range(0, len(cases), micro_batch):
        for start in range(first, first + micro_batch, chunk):
            stop = min(start + chunk, first + micro_batch)
            for i, picture in zip(range(start, stop), crop(draws, start, stop), strict=True):
                expected = slow_crop(images[index[i]], padding, mode, *cases[i].tolist())
                assert torch.equal(picture, expected), cases[i]


def test_reflecting_more_than_the_picture_is_refused() -> None:
    images = random_pictures(2, 4, 4).images
    with pytest.raises(ValueError, match="lower crop_padding"):
        CropFlip(images, Augment(crop_padding=4, padding_mode="reflect"), micro_batch=2, chunk=2)


def test_normalize_and_blank() -> None:
    images = random_pictures(6).images
    normalize = Normalize(MEAN, STD, CPU)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, STD))
    expected = (images.double() / 255 - mean) / std
    assert (normalize(images.float()) - expected).abs().max() < 1e-6

    mask = torch.zeros(6, 1, 32, 32)
    mask[:, :, 3:9, 4:20] = 1
    x = images.float()
    normalize.blank(x, mask)
    normalize(x)
    inside = mask.bool().expand_as(x)
    assert (x[inside] == 0).all()  # exactly, not nearly
    assert torch.equal(x[~inside], normalize(images.float())[~inside])


def test_write_channels_last_copies() -> None:
    x = torch.randn(3, 3, 5, 7)
    out = torch.empty(3, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    write_channels_last(x, out)
    assert torch.equal(x, out)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_rectangle_mask() -> None:
    rectangles = torch.tensor([[1, 3, 0, 2], [0, 0, 0, 0], [0, 4, 4, 5]])
    rows, columns = mask_sides(rectangles, (4, 5), torch.tensor([1.0, 1.0, 0.25]))
    expected = torch.zeros(3, 1, 4, 5)
    expected[0, 0, 1:3, 0:2] = 1
    expected[2, 0, :, 4] = 0.25
    assert torch.equal(rows * columns, expected)


def test_cutout_is_a_clipped_square_around_a_uniform_pixel() -> None:
    rectangles = draw_cutout(torch.arange(20000), 0, 0, 8, 32, 32)
    top, bottom, left, right = rectangles.unbind(1)
    assert top.min() == left.min() == 0
    assert bottom.max() == right.max() == 32
    assert set((bottom - top).tolist()) == set(range(4, 9))
    # A square is whole unless its centre is in the first 4 or the last 3 rows.
    assert abs(((bottom - top) == 8).double().mean() - 25 / 32) < 0.02
    assert not torch.equal(top, left)


@pytest.mark.parametrize("side", [1, 7, 8, 15, 70])
def test_cutout_is_that_of_the_papers_code(side: int) -> None:
    ids = torch.arange(500)
    ys, xs = (integers(draw(ids, 3, 1, p), n) for p, n in ((Purpose.CUTOUT_Y, 32), (Purpose.CUTOUT_X, 20)))
    rectangles = draw_cutout(ids, 3, 1, side, 32, 20)
    for y, x, rectangle in zip(ys.tolist(), xs.tolist(), rectangles.tolist(), strict=True):
        # github.com/uoguelph-mlrg/Cutout, util/cutout.py
        ends = [(y - side // 2, 32), (y + side // 2, 32), (x - side // 2, 20), (x + side // 2, 20)]
        assert rectangle == [min(max(end, 0), limit) for end, limit in ends]


def test_erasing_with_random_bytes() -> None:
    augment, size, ids = Augment(erase_prob=0.5, erase_value="random"), (9, 14), 7 * torch.arange(300) + 2
    draws = draw_noise(augment, size, ids, 1, 2)
    assert draws is not None
    assert torch.equal(draws.rectangles, draw_erasing(ids, 1, 2, 0.5, *size))
    x = torch.full((300, 3, *size), 99, dtype=torch.uint8)
    expected = x.clone()
    values = []
    for i, (top, bottom, left, right) in enumerate(draws.rectangles.tolist()):
        key = int(draw(ids[i : i + 1], 1, 2, Purpose.ERASE_VALUE))
        for y in range(top, bottom):
            for at in range(left, right):
                h = int(hash64(ids=torch.tensor([key + y * 14 + at]))) & (2**64 - 1)
                values.append([h >> shift & 255 for shift in (40, 48, 56)])
                expected[i, :, y, at] = torch.tensor(values[-1], dtype=torch.uint8)
    fill_noise_(x[:100], draws, 0, 100)  # in pieces, as chunks are
    fill_noise_(x[100:], draws, 100, 300)
    assert torch.equal(x, expected)
    count = torch.tensor(values)
    assert len(count) > 2000
    assert ((count.flatten() // 16).bincount(minlength=16) / count.numel() * 16 - 1).abs().max() < 0.15
    assert torch.corrcoef(count.double().T).fill_diagonal_(0).abs().max() < 0.06
    assert draw_noise(Augment(erase_prob=0.5), size, ids, 1, 2) is None


def test_cutout_and_erasing_may_come_together() -> None:
    ids = torch.arange(50)
    both = draw_blanks(Augment(cutout=8, erase_prob=0.5), (32, 32), ids, 0, 0)
    alone = [draw_cutout(ids, 0, 0, 8, 32, 32), draw_erasing(ids, 0, 0, 0.5, 32, 32)]
    assert all(torch.equal(a, b) for a, b in zip(both, alone, strict=True))


def test_erasing_has_the_published_ranges_and_probability() -> None:
    ids = torch.arange(40000)
    top, bottom, left, right = draw_erasing(ids, 0, 0, 0.25, 32, 32).unbind(1)
    height, width = bottom - top, right - left
    erased = height > 0
    assert abs(erased.double().mean() - 0.25) < 0.01
    area = (height * width)[erased] / 1024
    aspect = (height / width)[erased]
    assert 0.01 < area.min() < 0.03
    assert 0.32 < area.max() < 0.36
    assert 0.2 < aspect.min() < 0.4
    assert 2.5 < aspect.max() < 4.5
    assert abs((aspect > 1).double().mean() - 0.5) < 0.05
    assert (top.min(), left.min(), bottom.max(), right.max()) == (0, 0, 32, 32)
    assert height.max() == width.max() == 31  # published: smaller than the picture
    for probability in (0.0, 1.0):  # that a proposal does not fit must not make erasing rarer
        top, bottom, _, _ = draw_erasing(ids, 0, 0, probability, 32, 32).unbind(1)
        assert (bottom > top).double().mean() == probability
