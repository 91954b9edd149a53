"""A trained model in three lines, for notebooks and programs.

net, prepare = cifar_lab.load_model("runs/demo/0-96425461")
logits = net(prepare([Image.open("cat.jpg")]))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cifar_lab.data.pictures import upright_rgb
from cifar_lab.trained.model import SavedModel, open_saved
from cifar_lab.trained.network import SavedNetwork, best_device, load_network, source_size


@dataclass(frozen=True)
class Prepare:
    """From pictures to what the network is fed, as in training but without augmentation.

    `source_size`: side of the squares that it was trained on, before they were resized to what it is fed.
    """

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

    def __call__(self, pictures: Sequence[Image.Image] | Tensor) -> Tensor:
        """float32 (n, 3, s, s) on the network's device, normalised, of PIL pictures or a uint8 batch (n, 3, h, w)."""
        if not isinstance(pictures, Tensor):
            squares = [np.asarray(upright_rgb(picture, self.source_size)) for picture in pictures]
            pictures = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
        if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[1] != 3:
            raise ValueError(f"a batch is uint8 (n, 3, h, w), not {pictures.dtype} {tuple(pictures.shape)}")
        return self.network.prepare(pictures)


def load_model(run: str | Path) -> tuple[SavedNetwork, Prepare]:
    """The network of a completed run in evaluation mode on the best device, and what prepares pictures for it.

    Its logits are those of `cifar-lab predict`, in the run's precision; the bare network is `net.module`.
    `run` is a run directory or what `cifar-lab predict` takes. Raises SavedModelError.
    """
    prepare = load_prepare(open_saved(str(run)))
    return prepare.network, prepare


def load_prepare(saved: SavedModel) -> Prepare:
    """The model on the best device of this machine, behind its preparation. Raises SavedModelError."""
    return Prepare(load_network(saved, best_device()), saved.description.classes, source_size(saved))
