"""The likeliest classes of picture files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cifar_lab.data.pictures import read_pictures
from cifar_lab.trained.model import SavedModel
from cifar_lab.trained.network import SavedNetwork, best_device, load_network, source_size

BATCH = 64


@dataclass(frozen=True)
class Guess:
    """Of one file: names with probabilities, the likeliest first, and the square that they are of; or the problem."""

    path: Path
    top: list[tuple[str, float]]
    pixels: npt.NDArray[np.uint8] | None
    problem: str = ""


@dataclass(frozen=True)
class Guesser:
    """A network and the side of the squares that it was trained on, before they were resized to what it is fed."""

    network: SavedNetwork
    classes: tuple[str, ...]
    source_size: int

    @property
    def description(self) -> dict[str, object]:
        """How a picture reaches the network."""
        preparation = self.network.preparation
        return {
            "crop": "centre square",
            "source_size": self.source_size,
            "image_size": preparation.image_size,
            "interpolation": preparation.interpolation,
            "mean": list(preparation.mean),
            "std": list(preparation.std),
        }


def load_guesser(saved: SavedModel) -> Guesser:
    """The model on the best device of this machine. Raises SavedModelError."""
    network = load_network(saved, best_device())
    return Guesser(network, saved.description.classes, source_size(saved))


def guess(guesser: Guesser, paths: Iterable[Path], top: int) -> Iterator[Guess]:
    """One for each file, in their order."""
    waiting = iter(paths)
    while chunk := list(islice(waiting, BATCH)):
        files = read_pictures(chunk, guesser.source_size)
        good = [file.pixels for file in files if file.pixels is not None]
        ranked = iter(_ranked(guesser, np.stack(good), top) if good else ())
        for file in files:
            if file.pixels is None:
                yield Guess(file.path, [], None, file.problem)
            else:
                yield Guess(file.path, next(ranked), file.pixels)


def _ranked(guesser: Guesser, pixels: npt.NDArray[np.uint8], top: int) -> list[list[tuple[str, float]]]:
    """The `top` likeliest classes of each square with their probabilities; equal ones in their own order, as argmax."""
    ranked = _probabilities(guesser.network, pixels).sort(dim=1, descending=True, stable=True)
    values, indices = (part[:, :top] for part in ranked)
    return [
        [(guesser.classes[index], value) for index, value in zip(*row, strict=True)]
        for row in zip(indices.tolist(), values.tolist(), strict=True)
    ]


def _probabilities(network: SavedNetwork, pixels: npt.NDArray[np.uint8]) -> Tensor:
    """float32 (n, num_classes) of squares uint8 (n, S, S, 3), prepared as those of a data set are."""
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return network.logits(network.prepare(planes)).softmax(dim=1).cpu()
