"""augmented.png shows what the model is fed at step 0, and is drawn once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cifar_lab.data.images import ImageSet
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import Stream
from cifar_lab.files.contact_sheet import CELL, cut_tile
from cifar_lab.recipe.augment import Augment
from cifar_lab.training.sheets import draw_augmented

PREPARATION = Preparation(8, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def stream(num: int = 80, batch: int = 80, micro_batch: int = 20, **augment: Any) -> Stream:
    """Pictures of one colour each; the first channel is their id."""
    images = torch.full((num, 3, 8, 8), 200, dtype=torch.uint8)
    images[:, 0] = torch.arange(num, dtype=torch.uint8)[:, None, None]
    ids = torch.arange(num)
    return Stream(
        ImageSet(images, ids % 3, ids, ("a", "b", "c"), ""),
        PREPARATION,
        Augment(**augment),
        seed=4,
        global_batch=batch,
        micro_batch=micro_batch,
        device=torch.device("cpu"),
    )


def test_the_first_64_pictures_in_order(tmp_path: Path) -> None:
    path = tmp_path / "augmented.png"
    draw_augmented(path, stream(), PREPARATION, ("a", "b", "c"))
    other = stream()
    ids = torch.cat([other.micro_batch(0, m).ids.clone() for m in range(4)])[:64]
    with Image.open(path) as sheet:
        colours = [cut_tile(sheet, cell).getpixel((CELL // 2, CELL // 2)) for cell in range(64)]
    assert colours == [(int(i), 200, 200) for i in ids]


def test_a_small_batch_is_a_small_sheet_and_a_second_start_draws_nothing(tmp_path: Path) -> None:
    path = tmp_path / "augmented.png"
    draw_augmented(path, stream(batch=10, micro_batch=10), PREPARATION, ("a", "b", "c"))
    with Image.open(path) as sheet:
        assert sheet.height < 3 * (CELL + 40)
    before = path.read_bytes(), path.stat().st_mtime_ns
    draw_augmented(path, stream(), PREPARATION, ("a", "b", "c"))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_boxes_and_colours_are_shown_too(tmp_path: Path) -> None:
    augment = {"random_resized_crop": (0.5, 1.0), "vertical_flip": True, "brightness": 0.5}
    path = tmp_path / "augmented.png"
    draw_augmented(path, stream(**augment), PREPARATION, ("a", "b", "c"))
    other = stream(**augment)
    fed = torch.cat([other.micro_batch(0, m).images.clone() for m in range(4)])[:64, 1, 4, 4] * 0.3 + 0.5
    with Image.open(path) as sheet:
        greens = [cut_tile(sheet, cell).getpixel((CELL // 2, CELL // 2))[1] for cell in range(64)]
    assert greens == (255 * fed).round().int().tolist()
    assert len(set(greens)) > 20
