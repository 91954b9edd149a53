"""Dropout whose draws follow from the shape alone."""

from torch import Tensor, nn


class FlatDropout(nn.Dropout):
    """`nn.Dropout` that draws for the elements in the order of their dimensions.

    PyTorch's draws in the order of memory. On a feature map `channels_last` changes that, and so does a compiler that
    lays maps out as it likes (seen: inductor, where activations are recomputed).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements of `x` with probability p, else divide them by 1 - p."""
        if not self.training:
            return x
        keep = x.new_empty(x.numel()).bernoulli_(1 - self.p).div_(1 - self.p or 1)
        return x * keep.view(x.shape)


def draw_flat(model: nn.Module) -> None:
    """Let every `nn.Dropout` of `model` that drops anything be a FlatDropout, in place."""
    for layer in model.modules():
        if type(layer) is nn.Dropout and layer.p > 0:
            layer.__class__ = FlatDropout
