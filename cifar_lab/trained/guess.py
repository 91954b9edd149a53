"""The likeliest classes of picture files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cifar_lab.data.pictures import read_pictures
from cifar_lab.trained.load import Prepare

BATCH = 64


@dataclass(frozen=True)
class Guess:
    """Of one file: names with probabilities, the likeliest first, and the square that they are of; or the problem."""

    path: Path
    top: list[tuple[str, float]]
    pixels: npt.NDArray[np.uint8] | None
    problem: str = ""


def guess(prepare: Prepare, paths: Iterable[Path], top: int) -> Iterator[Guess]:
    """One for each file, in their order."""
    waiting = iter(paths)
    while chunk := list(islice(waiting, BATCH)):
        files = read_pictures(chunk, prepare.source_size)
        good = [file.pixels for file in files if file.pixels is not None]
        ranked = iter(_ranked(prepare, np.stack(good), top) if good else ())
        for file in files:
            if file.pixels is None:
                yield Guess(file.path, [], None, file.problem)
            else:
                yield Guess(file.path, next(ranked), file.pixels)


def _ranked(prepare: Prepare, pixels: npt.NDArray[np.uint8], top: int) -> list[list[tuple[str, float]]]:
    """The `top` likeliest classes of each square with their probabilities; equal ones in their own order, as argmax."""
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    probabilities = prepare.network(prepare(planes)).softmax(dim=1).cpu()
    ranked = probabilities.sort(dim=1, descending=True, stable=True)
    values, indices = (part[:, :top] for part in ranked)
    return [
        [(prepare.classes[index], value) for index, value in zip(*row, strict=True)]
        for row in zip(indices.tolist(), values.tolist(), strict=True)
    ]
