"""Running statistics of batch norm that follow from a step's micro-batches alone, however these are computed."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cifar_lab.errors import UsageError

BUFFERS = ("running_mean", "running_var")


class RunningStatistics:
    """Moves running statistics once a step, by each layer's `momentum` towards the *mean* over its micro-batches.

    Left alone, they would move with every forward pass: twice where activations are recomputed, A times with A
    accumulated micro-batches. So while a step is computed each layer has momentum 1, by which its buffers hold what it
    saw last, and this class keeps the old values and the sum. The update is linear, so averaging over processes
    commutes with it and is due only before the statistics are used. A layer that did not run, or is kept in evaluation
    mode, finds its own values in its buffers. Of a layer that is used twice in a forward pass, the last use counts.

    All buffers are views of one tensor: what is done here costs a few microseconds a step, however deep the net is.
    """

    def __init__(self, model: nn.Module, accumulation_steps: int) -> None:
        layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, _NormBase) and layer.track_running_stats
        }
        self.layers = list(layers.values())
        self.accumulation_steps = accumulation_steps
        if not layers:
            return
        for name, layer in layers.items():
            if layer.momentum is None:
                raise UsageError(
                    f"{name}: momentum=None averages over micro-batches, whose number a layout changes: set a number"
                )
        buffers = [getattr(layer, name) for layer in self.layers for name in BUFFERS]
        sizes = [buffer.numel() for buffer in buffers]
        shares = [layer.momentum for layer in self.layers for _ in BUFFERS]
        self._momenta = torch.cat([torch.full_like(b, share) for b, share in zip(buffers, shares, strict=True)])
        self._values = torch.cat(buffers)
        self._old, self._sum = self._values.clone(), torch.zeros_like(self._values)
        views = iter(self._values.split(sizes))
        for layer in self.layers:
            for name in BUFFERS:
                setattr(layer, name, next(views))
            layer.momentum = 1.0
            # It would count forward passes. With a fixed momentum nothing reads it, and torch fills it in when a state
            # dict lacks it.
            layer.num_batches_tracked = None
            if isinstance(layer, nn.SyncBatchNorm):  # it insists on counting: beside the state then
                del layer._buffers["num_batches_tracked"]
                layer.num_batches_tracked = torch.zeros_like(layer.running_mean, dtype=torch.int64).sum()

    def before(self, index: int) -> None:
        """To be called before the forward pass of micro-batch `index` of accumulation_steps."""
        if not self.layers:
            return
        if index == 0:
            self._old.copy_(self._values)
        else:  # what the last one left may be NaN, and stays with a weight of 0 too
            self._values.copy_(self._old)

    def after(self, index: int) -> None:
        """To be called after that forward pass; the backward pass may run parts of it again."""
        if not self.layers:
            return
        if index == 0:
            self._sum.copy_(self._values)
        else:
            self._sum.add_(self._values)

    def settle(self, bad: Tensor | bool | None) -> None:
        """End the step: the buffers get their new values or, where it was `bad` (a scalar that is not 0), the old."""
        if not self.layers:
            return
        torch.lerp(self._old, self._sum.div_(self.accumulation_steps), self._momenta, out=self._values)
        if bad is not None and bad is not False:
            flag = torch.as_tensor(bad, device=self._old.device).bool()
            torch.where(flag, self._old, self._values, out=self._values)
