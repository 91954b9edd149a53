"""The engine of a model that is trained: nothing but forward passes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from cifar_lab.runtime.world import World
from cifar_lab.trained.network import SavedNetwork


class InferenceEngine:
    """A Predictor: the network whole on every process; its buffers are equal and its weights the final ones."""

    def __init__(self, world: World, network: SavedNetwork) -> None:
        self.world, self.network = world, network

    def predict(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) in float32 of `images` (b, 3, s, s)."""
        return self.network.logits(images)

    def use_ema(self) -> AbstractContextManager[None]:
        """Nothing to swap in: the average is what was saved."""
        return nullcontext()

    def average_buffers(self) -> None:
        """Nothing to average."""
