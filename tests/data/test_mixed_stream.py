"""Mixing inside of the stream equals, bit for bit, mixing whole pictures by masks of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.pictures import MEAN, STD, make_stream, random_pictures, whole_batch

from cifar_lab.data import preparation
from cifar_lab.data.augment import Normalize
from cifar_lab.data.mixing import mix_pairs_
from cifar_lab.data.rectangles import mask_sides

CPU = torch.device("cpu")
MIXES = {
    "mixup": {"mixup_alpha": 0.4},
    "cutmix": {"cutmix_alpha": 1.0},
    "both": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
}
BEFORE = {
    "nothing": {},
    "crop": {"crop_padding": 4, "flip": True},
    "reflect": {"crop_padding": 3, "padding_mode": "reflect", "flip": "alternating"},
    "randaugment": {"crop_padding": 4, "flip": True, "randaugment_ops": 2},
    "noise": {"crop_padding": 4, "flip": True, "erase_prob": 0.5, "erase_value": "random"},
    "blanks": {"crop_padding": 4, "flip": True, "cutout": 8, "erase_prob": 0.5},
}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (12, 17)])
def test_equals_masks_of_weights(
    monkeypatch: pytest.MonkeyPatch, mix: str, before: str, height: int, width: int
) -> None:
    # Chunks of 8 and blocks of 4 pictures, with a rest: 40 = 5 * 8, or 12 = 8 + 4.
    monkeypatch.setattr(preparation, "_CHUNK_BYTES", 8 * 12 * height * width)
    monkeypatch.setattr(preparation, "_BLOCK_BYTES", 4 * 12 * height * width)
    data = random_pictures(60, height, width)
    augment: dict[str, Any] = BEFORE[before]
    settings: dict[str, Any] = {"mean": MEAN, "std": STD, "global_batch": 36, "micro_batch": 12}
    if height == width:
        settings["channels_last"] = True
    else:
        settings["image_size"] = 20
    stream = make_stream(data, {**augment, **MIXES[mix]}, **settings)
    assert stream._finish.block == (4 if height == width and mix != "cutmix" else stream._finish.chunk)
    draws = stream._draw(2).mix
    assert draws is not None
    rows, columns = mask_sides(draws.boxes[:18], (height, width), draws.partner_weight[:18])

    # The pictures before mixing, blanked ones too, from the same draws without mixing and with nothing normalised.
    unmixed = make_stream(data, augment, **settings | {"mean": (0, 0, 0), "std": (1 / 255,) * 3, "micro_batch": 36})
    normalize = Normalize(MEAN, STD, CPU)
    unmixed._finish.normalize.fill = normalize.fill
    x = _source_pixels(unmixed, 2)
    mix_pairs_(x, rows * columns)
    normalize(x)
    images, _, _, own = whole_batch(stream, 2)
    assert own is not None
    if height == width:
        assert torch.equal(images, x)
        return
    expected = torch.empty_like(images)
    for start in range(0, 36, 12):
        for begin, end in preparation.pieces(start, start + 12, stream._finish.chunk):
            assert stream._finish._resize is not None
            stream._finish._resize(x[begin:end], expected[begin:end])
    assert torch.equal(images, expected)


def _source_pixels(stream: Any, step: int) -> torch.Tensor:
    """The float32 pictures of one global batch before they are resized."""
    kept = []
    finish = stream._finish

    class Keeping:
        chunk, block, images, normalize = finish.chunk, finish.block, finish.images, finish.normalize

        def source(self, start: int, stop: int) -> torch.Tensor:
            self._x = finish.source(start, stop)
            return self._x

        def __call__(self, start: int, stop: int) -> None:
            kept.append(self._x.clone())

    stream._finish = Keeping()
    stream.micro_batch(step, 0)
    return torch.cat(kept)
