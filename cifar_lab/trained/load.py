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
from torch import Tensor, nn

from cifar_lab.data.pictures import upright_rgb
from cifar_lab.trained.model import open_saved
from cifar_lab.trained.network import SavedNetwork, best_device, load_network, source_size


@dataclass(frozen=True)
class Prepare:
    """From pictures to what the network is fed, as in training but without augmentation."""

    network: SavedNetwork
    classes: tuple[str, ...]
    source_size: int

    def __call__(self, pictures: Sequence[Image.Image] | Tensor) -> Tensor:
        """float32 (n, 3, s, s) on the network's device, normalised, of PIL pictures or a uint8 batch (n, 3, h, w)."""
        if not isinstance(pictures, Tensor):
            squares = [np.asarray(upright_rgb(picture, self.source_size)) for picture in pictures]
            pictures = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
        if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[1] != 3:
            raise ValueError(f"a batch is uint8 (n, 3, h, w), not {pictures.dtype} {tuple(pictures.shape)}")
        return self.network.prepare(pictures)


def load_model(run: str | Path) -> tuple[nn.Module, Prepare]:
    """The network of a completed run in evaluation mode on the best device, and what prepares pictures for it.

    `run` is a run directory or what `cifar-lab predict` takes. Raises SavedModelError.
    """
    saved = open_saved(str(run))
    network = load_network(saved, best_device())
    return network.module, Prepare(network, saved.description.classes, source_size(saved))
