"""A saved model, loaded and asked; for notebooks and programs in three lines.

net, prepare = cifar_lab.load_model("runs/demo/0-2c5bad0c")
logits = net(prepare([Image.open("cat.jpg")]))
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cifar_lab.data.images import ImageSet
from cifar_lab.data.pictures import PictureFile, read_pictures, upright_rgb
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import EvalStream
from cifar_lab.errors import UserError
from cifar_lab.models.description import DESCRIPTION
from cifar_lab.models.factory import ModelError, build_meta, build_model
from cifar_lab.models.tf32 import products
from cifar_lab.models.weights import describe_mismatch, read_weights
from cifar_lab.recipe.schema import Model
from cifar_lab.runtime.make import uses_channels_last
from cifar_lab.trained.model import SavedModel, open_saved

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCH = 64  # pictures of files that are decoded and asked at a time

Pictures = Sequence[Image.Image] | Tensor


class SavedNetwork(nn.Module):
    """A network in evaluation mode, in its run's precision, and how it is fed; the bare network is `module`.

    `source_size`: side of the pictures that it was trained on, before they were resized to what it is fed; `fit`: how
    pictures come to it.
    """

    def __init__(self, saved: SavedModel, device: torch.device) -> None:
        """Raises UserError for files that do not fit."""
        super().__init__()
        description, module = saved.description, load_module(saved).to(device)
        self.classes = description.classes
        self.source_size, self.fit = description.source_size or description.image_size, description.fit
        self.preparation = Preparation(
            description.image_size, description.interpolation, description.mean, description.std
        )
        self.autocast, self.tf32 = AUTOCAST[saved.recipe.train.precision], saved.recipe.train.tf32
        self.channels_last = uses_channels_last(module, saved.recipe)
        self.module = module.to(memory_format=torch.channels_last) if self.channels_last else module
        self.eval()

    def prepare(self, pictures: Pictures) -> Tensor:
        """What is fed, float32 (n, 3, s, s) on the network's device, of PIL pictures or a uint8 batch (n, 3, h, w).

        As in training but without augmentation: normalised, of PIL pictures upright squares.
        """
        if not isinstance(pictures, Tensor):
            squares = [np.asarray(upright_rgb(picture, self.source_size, self.fit)) for picture in pictures]
            pictures = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
        if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[1] != 3:
            raise ValueError(f"a batch is uint8 (n, 3, h, w), not {pictures.dtype} {tuple(pictures.shape)}")
        num, device = len(pictures), next(self.module.parameters()).device
        images = ImageSet(pictures, torch.zeros(num, dtype=torch.int64), torch.arange(num), (), "pictures")
        (batch,) = EvalStream(images, self.preparation, batch=num, device=device, channels_last=self.channels_last)
        return batch.images

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (b, num_classes), of prepared images (b, 3, s, s)."""
        autocast = torch.autocast(images.device.type, dtype=self.autocast, enabled=self.autocast is not None)
        with products(tf32=self.tf32), autocast:
            logits = self.module(images)
        return logits.float()

    def guess(self, paths: Iterable[Path], top: int) -> Iterator[tuple[PictureFile, list[tuple[str, float]]]]:
        """Each file, in their order, with its `top` likeliest classes and their probabilities; none of a broken one.

        Equally likely classes come in their own order, as argmax has it.
        """
        waiting = iter(paths)
        while chunk := list(islice(waiting, BATCH)):
            files = read_pictures(chunk, self.source_size, self.fit)
            good = [Image.fromarray(file.pixels) for file in files if file.pixels is not None]
            probabilities = self(self.prepare(good)).softmax(dim=1).cpu() if good else torch.empty(0, 1)
            ranked = iter(probabilities.sort(dim=1, descending=True, stable=True).indices[:, :top].tolist())
            rows = iter(probabilities.tolist())
            for file in files:
                row, best = ([], []) if file.pixels is None else (next(rows), next(ranked))
                yield file, [(self.classes[index], row[index]) for index in best]


def load_model(run: str | Path) -> tuple[SavedNetwork, Callable[[Pictures], Tensor]]:
    """The network of a completed run on the best device, and what prepares pictures for it.

    Its logits are those of `cifar-lab predict`. `run` is a run directory or what `cifar-lab predict` takes.
    Raises UserError.
    """
    network = load_network(open_saved(run))
    return network, network.prepare


def load_network(saved: SavedModel) -> SavedNetwork:
    """The network on the GPU if there is one. Raises UserError."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return SavedNetwork(saved, accelerator or torch.device("cpu"))


def load_module(saved: SavedModel) -> nn.Module:
    """The network itself, in evaluation mode and fp32, on the CPU. Raises UserError for files that do not fit."""
    description = saved.description
    model = Model(name=description.name, args=description.args)
    try:
        weights = read_weights(saved.weights)
    except ModelError as error:
        raise UserError(str(error).removeprefix("model.weights: ")) from None
    try:
        # First without memory, of which a wrong description may ask for any amount.
        build_meta(model, description.num_classes, description.image_size).load_state_dict(weights, assign=True)
        module = build_model(model, description.num_classes, description.image_size, seed=0)
        module.load_state_dict(weights)
    except ModelError as error:
        raise UserError(f"{saved.weights.parent / DESCRIPTION}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"{saved.weights} does not fit its {DESCRIPTION}: {describe_mismatch(error)}") from None
    return module.requires_grad_(False).eval()
