"""A saved model, built, loaded and ready to be asked."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cifar_lab.data.images import ImageSet, find_source
from cifar_lab.data.preparation import Preparation
from cifar_lab.data.stream import EvalStream
from cifar_lab.models.factory import ModelError, build_meta, build_model
from cifar_lab.models.weights import describe_mismatch
from cifar_lab.recipe.schema import Model
from cifar_lab.runtime.make import uses_channels_last
from cifar_lab.trained.model import DESCRIPTION, Description, SavedModel, SavedModelError


class SavedNetwork(nn.Module):
    """A network in evaluation mode, and how it is fed; `bf16`: forward passes autocast, as in its run."""

    def __init__(self, module: nn.Module, preparation: Preparation, channels_last: bool, bf16: bool) -> None:
        super().__init__()
        self.module, self.preparation, self.channels_last, self.bf16 = module, preparation, channels_last, bf16
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def prepare(self, pixels: Tensor) -> Tensor:
        """float32 (b, 3, s, s) on the device of uint8 (b, 3, h, w), prepared as the pictures of a data set are."""
        num = len(pixels)
        images = ImageSet(pixels, torch.zeros(num, dtype=torch.int64), torch.arange(num), (), "pictures")
        (batch,) = EvalStream(images, self.preparation, batch=num, device=self.device, channels_last=self.channels_last)
        return batch.images

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (b, num_classes), of prepared images (b, 3, s, s)."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.module(images)
        return logits.float()


def load_network(saved: SavedModel, device: torch.device) -> SavedNetwork:
    """Build the model and load its weights, all by name. Raises SavedModelError for files that do not fit."""
    module = load_module(saved)
    channels_last = uses_channels_last(module, saved.recipe)
    module = module.to(device)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    return SavedNetwork(
        module, preparation_of(saved.description), channels_last, bf16=saved.recipe.train.precision == "bf16"
    )


def preparation_of(description: Description) -> Preparation:
    """How pictures reach the model."""
    return Preparation(description.image_size, description.interpolation, description.mean, description.std)


def load_module(saved: SavedModel) -> nn.Module:
    """The network itself, in evaluation mode and fp32, on the CPU."""
    description = saved.description
    try:
        weights = load_file(saved.weights)
    except (SafetensorError, OSError) as error:
        raise SavedModelError(f"{saved.weights} cannot be read: {error}") from None
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    model = Model(name=description.name, args=description.args)
    try:
        # First without memory, of which a wrong description may ask for any amount.
        build_meta(model, description.num_classes, description.image_size).load_state_dict(weights, assign=True)
        module = build_model(model, description.num_classes, description.image_size, seed=0)
        module.load_state_dict(weights)
    except ModelError as error:
        raise SavedModelError(f"{saved.weights.parent / DESCRIPTION}: {error}") from None
    except RuntimeError as error:
        raise SavedModelError(f"{saved.weights} does not fit its {DESCRIPTION}: {describe_mismatch(error)}") from None
    return module.requires_grad_(False).eval()


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def source_size(saved: SavedModel) -> int:
    """Side of the data set's pictures, where it is known; else pictures go to the model's size at once."""
    if saved.description.source_size is not None:
        return saved.description.source_size
    info = None
    if saved.run is not None:
        info = find_source(saved.recipe.data.name).info(**saved.recipe.data.args)
    return info.image_size if info is not None else saved.description.image_size
